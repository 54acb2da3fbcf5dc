"""How long an answer asks us to wait. Pure: the time of day is an argument."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_S = 600.0
"""No wish of a server's parks a run for longer than this."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def parse_retry_after(headers: Mapping[str, str], now: datetime, cap_s: float = MAX_RETRY_AFTER_S) -> float | None:
    """
    Seconds to wait, from `retry-after-ms` or `retry-after`: a number, whole or not, or an HTTP date.

    Args:
        headers: Looked up by their lower-case names.
        now: An aware time, to measure dates from.
        cap_s: No wish is longer.

    Returns:
        Seconds in [0, cap_s]; a moment already past is 0; None where nothing sensible is said.

    Source: RFC 9110 section 10.2.3; `retry-after-ms` as OpenAI and Azure send it.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _capped(milliseconds / 1000, cap_s)
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None:
        return _capped(seconds, cap_s)
    moment = _moment(text)
    return None if moment is None else _capped((moment - now).total_seconds(), cap_s)


def _number(text: str | None) -> float | None:
    """A number that is not negative; digits and a point only, so neither "nan" nor "infinity"."""
    if text is None or not _NUMBER.fullmatch(text.strip()):
        return None
    number = float(text)
    return number if number >= 0 else None


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _capped(seconds: float, cap_s: float) -> float:
    return min(max(0.0, seconds), cap_s) if not math.isnan(seconds) else 0.0
