"""Plain JSON out of shared types, fit for SQL, whatever a hostile or mistaken peer has put there."""

import math
import re
from collections.abc import Mapping

from pycrdt import Array, Map, Text

from crdt.json import Json

MAX_DEPTH = 32
"""Levels of nesting that are read; what lies deeper becomes None."""
MAX_SAFE_INTEGER = 2**53 - 1
"""Whole numbers beyond it are not exact in a browser; they travel as text."""
_DATA_URL = re.compile(r"\s*data:[\w.+-]+/[\w.+-]+(?:;[\w=.+\"-]+)*,", re.IGNORECASE)


def plain(value: object, depth: int = 0) -> Json:
    """Plain JSON of a value read from a document.

    Whole floats become ints (JavaScript has only floats), NaN and infinities None, bytes None, NUL characters and lone
    surrogates U+FFFD (Postgres stores neither), big integers text.
    """
    if isinstance(value, bool | int | float):
        return value if isinstance(value, bool) else _number(value)
    if isinstance(value, str | Text):
        return clean_text(str(value))
    return None if depth >= MAX_DEPTH else _container(value, depth)


def _container(value: object, depth: int) -> Json:
    if isinstance(value, Map):
        return {clean_text(key): plain(value[key], depth + 1) for key in value.keys()}  # noqa: SIM118 - no dict
    if isinstance(value, Mapping):
        return {clean_text(str(key)): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, Array | list | tuple):
        return [plain(item, depth + 1) for item in value]
    return None


def clean_text(text: str) -> str:
    """Text that every database takes: no NUL, no lone surrogate."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8", "replace")


def _number(value: float) -> Json:
    if not isinstance(value, int):
        if not math.isfinite(value):
            return None
        if value.is_integer() and abs(value) <= MAX_SAFE_INTEGER:
            return int(value)
        return value
    return value if abs(value) <= MAX_SAFE_INTEGER else str(value)


def without_data_urls(value: Json) -> Json:
    """The value with every `data:` URL in it set to None: picture bytes belong in the image store, not in SQL."""
    if isinstance(value, str):
        return None if is_data_url(value) else value
    if isinstance(value, Mapping):
        return {key: without_data_urls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_data_urls(item) for item in value]
    return value


def is_data_url(value: Json) -> bool:
    """Whether a value is a `data:` URL with a media type (RFC 2397); a sentence that begins with "data:" is none."""
    return isinstance(value, str) and _DATA_URL.match(value[:256]) is not None
