"""The HTTP of both clients: the server's address, a call as an HTTP request, and failures as exceptions. No IO."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from winnow.clients import retries
from winnow.clients.calls import PROBE_SECONDS, Call
from winnow.clients.errors import (
    ConnectionFailed,
    RefusedByServer,
    StreamBroken,
    TimedOut,
    UnreadableAnswer,
    WinnowClientError,
    kind_of,
)
from winnow.clients.network import Route, parse_address, route_to
from winnow.clients.schema import ErrorBody, ErrorDetail
from winnow.clients.streams import StreamedAnswer
from winnow.clients.text_files import read_entries

T = TypeVar("T")
BASE_URL = "http://127.0.0.1:8000/v1"
TIMEOUT = httpx.Timeout(10.0, read=600.0, pool=600.0)
LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100)

_KEY = re.compile(r"[!-~]+")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def read_api_key(path: Path) -> str:
    """Return the API key that a file holds; blank lines and comments (#) are passed over, as in the server's file.

    Raises:
        ValueError: the file cannot be read, or does not hold one key; the message says why, and shows none.
    """
    keys = [key for _, key in read_entries(path)]
    if len(keys) != 1:
        raise ValueError(f"{path} holds {len(keys) or 'no'} key{'s' if keys else ''}; a client sends exactly one")
    if _DIGEST.fullmatch(keys[0]):
        raise ValueError(f"{path} holds the digest of a key, which only a server can use; a client needs the key")
    return keys[0]


class Connection:
    """The address of a server, the API key, timeouts and retries.

    Raises:
        ValueError: the address does not end in `/v1` or holds a password, or the key is not valid in a header. No
            message shows a key.
    """

    def __init__(self, base_url: str, api_key: str | None, timeout: httpx.Timeout | float | None, retries: int) -> None:
        try:
            url = parse_address(base_url)
        except ValueError as error:
            raise ValueError(f"base_url: {error}") from None
        if url.scheme not in ("http", "https") or not url.host or "@" in str(url) or url.query or url.fragment:
            raise ValueError("base_url is http(s)://HOST[:PORT]/v1, without a password; the key goes into api_key")
        path = url.path.rstrip("/")
        if not path.endswith("/v1"):
            raise ValueError(f"base_url must end in /v1, as in {BASE_URL}; got {base_url}")
        if api_key is not None and not _KEY.fullmatch(api_key):
            raise ValueError("api_key must be printable ASCII without spaces")
        if retries < 0:
            raise ValueError(f"max_retries must be 0 or more; got {retries}")
        self.base_url = str(url.copy_with(path=path))
        self.max_retries = retries
        self._route = Route(url)
        self._http_options: dict[str, Any] = {
            "base_url": url.copy_with(path=path.removesuffix("/v1") + "/"),
            # httpx.Headers hides the key when it is printed.
            "headers": httpx.Headers({"Authorization": f"Bearer {api_key}"} if api_key else {}),
            "timeout": timeout,
            "limits": LIMITS,
        }

    def http_options(self, transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None) -> dict[str, Any]:
        """Return the arguments of httpx's clients; the environment decides the way unless there is a `transport`.

        Raises:
            UnusableEnvironment: see `winnow.clients.network`.
        """
        if transport:
            return {**self._http_options, "transport": transport}
        self._route = route_to(self._route.address)
        return {**self._http_options, **self._route.http_options()}

    def request(self, call: Call[Any]) -> dict[str, Any]:
        """Return the arguments of httpx's `build_request`."""
        headers = {"X-Request-Id": call.request_id}
        if call.content is None:
            timeout = {"timeout": PROBE_SECONDS} if call.is_probe else {}
            return {"method": "GET", "url": call.path, "headers": headers, **timeout}
        headers["Content-Type"] = "application/json"
        return {"method": "POST", "url": call.path, "headers": headers, "content": call.content}

    def pause(self, call: Call[Any], error: WinnowClientError, retried: int) -> float:
        """Return the seconds to wait before the next attempt; raise `error` if there is to be none."""
        pause = retries.pause_before_retry(error, retried, 0 if call.is_probe else self.max_retries)
        if pause is None:
            raise error
        return pause

    def unanswered(self, problem: httpx.RequestError) -> WinnowClientError:
        """Return the error for a request that got no response."""
        error = self._lost(problem)
        error.__cause__ = problem
        if isinstance(problem, httpx.ProxyError):
            error.is_transient = not str(problem).startswith("4")  # a proxy that refuses will refuse again
        else:
            error.is_transient = not isinstance(problem, httpx.TimeoutException) or isinstance(
                problem, httpx.ConnectTimeout
            )
        return error

    def _lost(self, problem: httpx.RequestError) -> WinnowClientError:
        proxy, reason = self._route.proxy, str(problem) or type(problem).__name__
        if isinstance(problem, httpx.ProxyError):
            return ConnectionFailed(f"{self._route.shown} does not connect to {self.base_url}: {self._advice(reason)}")
        if isinstance(problem, httpx.ConnectError) and _is_about_certificates(problem):
            return ConnectionFailed(
                f"no secure connection to {self.base_url}{self._through}: {reason}; certificates to trust come from "
                "the file that SSL_CERT_FILE names"
            )
        if isinstance(problem, httpx.ConnectError | httpx.ConnectTimeout) and proxy and proxy.url.scheme == "http":
            kind = TimedOut if isinstance(problem, httpx.TimeoutException) else ConnectionFailed
            return kind(f"{self._route.shown} cannot be reached: {self._advice(reason)}")
        if isinstance(problem, httpx.TimeoutException):
            kind_of_timeout = type(problem).__name__
            return TimedOut(f"the server at {self.base_url} did not answer in time ({kind_of_timeout}){self._through}")
        if isinstance(problem, httpx.ConnectError):
            return ConnectionFailed(f"no server answers at {self.base_url}{self._through}: {reason}")
        return ConnectionFailed(f"the connection to {self.base_url}{self._through} failed: {reason}")

    @property
    def _through(self) -> str:
        return f" through {self._route.shown}" if self._route.proxy else ""

    def _advice(self, reason: str) -> str:
        return f"{reason}; {self._route.remedy}"

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Translate failures while the block reads the body of a success; these are not retried."""
        try:
            yield
        except httpx.RequestError as problem:
            raise self._lost(problem) from problem

    @contextmanager
    def reading_stream(self, answer: StreamedAnswer) -> Iterator[None]:
        """Translate failures while the block feeds a stream to `answer`; raise StreamBroken if it ends incomplete."""
        try:
            yield
        except httpx.TimeoutException as problem:
            if not answer.is_done:
                raise self._lost(problem) from problem
        except httpx.RequestError as problem:
            if not answer.is_done:
                raise StreamBroken(f"the stream broke off: {problem or type(problem).__name__}") from problem
        if not answer.is_done:
            raise StreamBroken("the stream ended before the answer was complete")

    def result(self, call: Call[T], response: httpx.Response) -> T:
        """Return the result of a successful response whose body has been read.

        Raises:
            UnreadableAnswer: the body is not what Winnow sends.
        """
        try:
            return call.read(response.content, request_id(call, response))
        except ValidationError as error:
            where = response.url.copy_with(query=None)
            status = response.status_code
            raise UnreadableAnswer(f"{where}{self._through} answered {status}, but not as Winnow does") from error

    def refusal(self, call: Call[Any], response: httpx.Response) -> RefusedByServer:
        """Return the error for an unsuccessful response whose body has been read."""
        try:
            detail = ErrorBody.model_validate_json(response.content).error
        except ValidationError:  # a proxy's page, or a probe's answer
            detail = ErrorDetail(message=self._unexplained(response), type="unknown")
        error = kind_of(detail.code, response.status_code)(
            detail.message,
            status=response.status_code,
            code=detail.code,
            param=detail.param,
            request_id=request_id(call, response),
            retry_after=retries.retry_after(response.headers, datetime.now(UTC)),
        )
        error.is_transient = retries.is_transient(response.status_code, response.headers)
        return error

    def _unexplained(self, response: httpx.Response) -> str:
        """Return the message for an error status whose body is not Winnow's."""
        status = f"{response.status_code} {response.reason_phrase}".rstrip()
        if not self._route.proxy:
            return f"the server answered {status}"
        return f"{self._route.shown}, or a server behind it, answered {self._advice(status)}"


def _is_about_certificates(problem: httpx.ConnectError) -> bool:
    return "[SSL" in str(problem) or "CERTIFICATE" in str(problem)


def request_id(call: Call[Any], response: httpx.Response) -> str:
    """Return the id of the call in the server's log."""
    return str(response.headers.get("x-request-id", call.request_id))
