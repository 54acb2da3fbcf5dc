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

REMOVED = "[picture]"
_EMBEDDED = re.compile(
    r"data:[\w.+-]+/[\w.+-]+(?:;[\w=.+\"-]+)*;base64,[A-Za-z0-9+/=_%-]*(?:\r?\n[A-Za-z0-9+/=_-]{16,})*", re.IGNORECASE
)
_CODED = re.compile("base64,", re.IGNORECASE)
_STARTS = ("iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD")
"""How PNG, JPEG, WebP and GIF begin in base64."""
_LEAST_BARE = 64
# Not behind a letter or a slash: an address may hold such a piece by chance.
_BARE = re.compile(rf"(?<![\w/.:-])(?:{'|'.join(_STARTS)})[A-Za-z0-9+/\r\n]{{{_LEAST_BARE - 16},}}=*")


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
    """The value without picture bytes: they belong in the image store, not in SQL.

    A `data:` URL becomes None; inside of other text, and as a key, it becomes `REMOVED`, as base64 of a picture does.
    """
    if isinstance(value, str):
        return None if is_data_url(value) else without_picture_bytes(value)
    if isinstance(value, Mapping):
        return {without_picture_bytes(key): without_data_urls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_data_urls(item) for item in value]
    return value


def without_picture_bytes(text: str) -> str:
    """The text with `REMOVED` in place of every `data:` URL in base64, and of base64 that begins like a picture."""
    if _CODED.search(text):
        text = _EMBEDDED.sub(REMOVED, text)
    if len(text) >= _LEAST_BARE and any(start in text for start in _STARTS):
        text = _BARE.sub(REMOVED, text)
    return text


def holds_picture_bytes(value: Json) -> bool:
    """Whether there is anything in a value that `without_data_urls` takes out."""
    if isinstance(value, str):
        return is_data_url(value) or without_picture_bytes(value) != value
    if isinstance(value, Mapping):
        return any(holds_picture_bytes(key) or holds_picture_bytes(item) for key, item in value.items())
    return isinstance(value, list | tuple) and any(map(holds_picture_bytes, value))


def is_data_url(value: Json) -> bool:
    """Whether a value is a `data:` URL with a media type (RFC 2397); a sentence that begins with "data:" is none."""
    return isinstance(value, str) and _DATA_URL.match(value[:256]) is not None
