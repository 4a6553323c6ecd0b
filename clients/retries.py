"""The retry policy: which failures to retry, and how long to wait before. Pure except for the jitter."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from winnow.clients.errors import RefusedByServer, WinnowClientError

MAX_RETRIES = 2
MAX_PAUSE = 8.0
"""Upper limit in seconds of the exponential backoff."""
MAX_RETRY_AFTER = 60.0
"""Longest `Retry-After` in seconds that the clients honour; beyond it they raise at once."""
TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


def pause_before_retry(error: WinnowClientError, retried: int, max_retries: int) -> float | None:
    """Return the seconds to wait before the next attempt after `error` and `retried` retries; None to stop retrying.

    The server's `Retry-After` is honoured if there is one. Otherwise the n-th pause, from n = 0, is random between
    2ⁿ/2 and 2ⁿ seconds, and at most 8.
    """
    if not error.is_transient or retried >= max_retries:
        return None
    if isinstance(error, RefusedByServer) and error.retry_after is not None:
        return error.retry_after if error.retry_after <= MAX_RETRY_AFTER else None
    ceiling = min(2.0 ** min(retried, 10), MAX_PAUSE)
    return random.uniform(ceiling / 2, ceiling)


def is_transient(status: int, headers: Mapping[str, str]) -> bool:
    """Whether a retry may help: the header `x-should-retry` decides, or the status if there is none."""
    match headers.get("x-should-retry"):
        case "true":
            return True
        case "false":
            return False
    return status in TRANSIENT_STATUSES


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds to wait, 0 or more, from a `Retry-After` (seconds or an HTTP date); None for anything else."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now.timestamp())
