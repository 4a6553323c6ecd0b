"""When to try again, and how long to wait before it. Pure, but for the jitter."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from winnow.clients.errors import RefusedByServer, WinnowClientError

MAX_RETRIES = 2
LONGEST_PAUSE = 8.0
"""Seconds that the clients wait by their own choice."""
LONGEST_RETRY_AFTER = 60.0
"""Seconds that the clients wait because the server says so; asked for more, they raise at once."""
TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


def pause_before_retry(error: WinnowClientError, retried: int, max_retries: int) -> float | None:
    """Seconds to wait before the next try, or None to give up, after `error` and `retried` earlier retries.

    The n-th pause is random between 2ⁿ/2 and 2ⁿ seconds, at most 8; what the server's `Retry-After` says is kept to instead.
    """
    if not error.is_transient or retried >= max_retries:
        return None
    if isinstance(error, RefusedByServer) and error.retry_after is not None:
        return error.retry_after if error.retry_after <= LONGEST_RETRY_AFTER else None
    ceiling = min(2.0 ** min(retried, 10), LONGEST_PAUSE)
    return random.uniform(ceiling / 2, ceiling)


def is_transient(status: int, headers: Mapping[str, str]) -> bool:
    """Whether a retry may help: `x-should-retry` decides, without it the status."""
    match headers.get("x-should-retry"):
        case "true":
            return True
        case "false":
            return False
    return status in TRANSIENT_STATUSES


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to stay away, never negative, from a `Retry-After` in seconds or as an HTTP date; None for anything else."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now.timestamp())
