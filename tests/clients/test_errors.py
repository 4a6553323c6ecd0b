from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from winnow import clients
from winnow.clients import errors
from winnow.clients.errors import BY_CODE, RefusedByServer, ServerError, WinnowClientError, kind_of

OF_HTTP = {"untrusted_host", "foreign_origin", "invalid_http", "request_timeout"}
"""Codes that no request of these clients gets, unless what is between them and the server is wrong; plain refusals."""
DOCUMENTED = Path(__file__).parents[2] / "docs" / "api.md"


def test_every_documented_code_has_an_exception() -> None:
    table = DOCUMENTED.read_text(encoding="utf-8").split("## Errors")[1]
    codes = set(re.findall(r"^\| \d+ \| `(\w+)` \|", table, re.MULTILINE))
    assert codes
    assert codes - OF_HTTP == BY_CODE.keys()


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__
    tree = errors.__doc__.split("\n\n")[1]
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, WinnowClientError)]
    drawn = {}
    above: list[str] = []
    for line in tree.splitlines():
        prefix, name = re.match(r"([ │├└─]*)(\w+)", line.removeprefix("    ")).groups()  # type: ignore[union-attr]
        above = [*above[: len(prefix) // 4], name]
        drawn[name] = above[-2] if len(above) > 1 else "Exception"
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in kinds}


def test_every_exception_is_the_packages() -> None:
    assert {kind.__name__ for kind in BY_CODE.values()} <= set(clients.__all__)
    assert all(hasattr(clients, name) for name in clients.__all__)


@pytest.mark.parametrize("status", [None, 200, 400, 404, 500, 503])
def test_the_code_decides_the_exception(status: int | None) -> None:
    for code, kind in BY_CODE.items():
        assert kind_of(code, status) is kind


def test_without_a_known_code_the_status_decides() -> None:
    assert kind_of(None, 500) is kind_of("new_in_2030", 503) is ServerError
    assert kind_of(None, None) is kind_of(None, 413) is kind_of("untrusted_host", 421) is RefusedByServer


@pytest.mark.parametrize("kind", set(BY_CODE.values()), ids=lambda kind: kind.__name__)
def test_a_refusal_survives_pickling_and_notes_its_attributes(kind: type[RefusedByServer]) -> None:
    error = kind("no", status=400, code="c", param="p", request_id="req_1", retry_after=1.5)
    error.is_transient = True
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (kind, "no", vars(error))
    assert error.__notes__ == ["status 400, code c, param p, request id req_1"]
