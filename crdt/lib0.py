"""The encodings of lib0 that Yjs updates are made of: numbers, text, and Any values."""

from collections.abc import Mapping
from contextlib import suppress
from struct import pack, unpack
from typing import Final

_MORE = 0x80
_MAX_SHIFT = 56
OBJECT, ARRAY = 118, 117
_TEXT, _BYTES, _INT = 119, 116, 125
_NULL, _FLOAT32, _FLOAT64, _FALSE = 126, 124, 123, 121
_INT_LIMIT = 2**31
_FIXED: Final = {127: 0, 126: 0, 124: 4, 123: 8, 122: 8, 121: 0, 120: 0}
"""Bytes behind the tag of an Any value of fixed size."""
MAX_DEPTH: Final = 2_000
"""Any values may be nested so deep: yrs, which recurses, survives five times that with a stack of 8 MiB."""


class Cursor:
    """A place in encoded bytes; reading over the end is an IndexError, an unknown tag a KeyError."""

    __slots__ = ("_data", "_names", "at")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._names: dict[bytes, str] = {}
        self.at = 0

    def byte(self) -> int:
        """One byte."""
        byte = self._data[self.at]
        self.at += 1
        return byte

    def uint(self) -> int:
        """A variable-length unsigned integer below 2**56."""
        byte = self._data[self.at]
        self.at += 1
        if byte < _MORE:
            return byte
        value, shift = byte & 0x7F, 7
        while shift < _MAX_SHIFT:
            byte = self._data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < _MORE:
                return value
            shift += 7
        raise IndexError("a number has more than eight bytes")

    def skip(self, size: int) -> None:
        """Pass over bytes."""
        self.at += size
        if self.at > len(self._data):
            raise IndexError("the end")

    def skip_bytes(self) -> None:
        """Pass over bytes behind their length."""
        self.skip(self.uint())

    def text(self) -> str:
        """UTF-8 text behind its length."""
        size = self.uint()
        start = self.at
        self.skip(size)
        raw = self._data[start : self.at]
        # The same few keys come again and again: one object for each.
        name = self._names.get(raw)
        if name is None:
            name = self._names[raw] = raw.decode()
        return name

    def skip_any(self) -> None:
        """Skip one Any value (lib0 `writeAny`); one nested deeper than `MAX_DEPTH` counts as unknown."""
        open_values, keyed = [1], [False]
        while open_values:
            if open_values[-1] == 0:
                open_values.pop()
                keyed.pop()
                continue
            open_values[-1] -= 1
            if keyed[-1]:
                self.skip_bytes()
            tag = self._data[self.at]
            self.at += 1
            if tag in (_TEXT, _BYTES):
                self.skip_bytes()
            elif tag in (OBJECT, ARRAY):
                if len(open_values) > MAX_DEPTH:
                    raise KeyError(tag)
                open_values.append(self.uint())
                keyed.append(tag == OBJECT)
            elif tag == _INT:
                self.uint()
            else:
                self.skip(_FIXED[tag])


def write_uint(out: bytearray, value: int) -> None:
    """Append a variable-length unsigned integer."""
    while value >= _MORE:
        out.append(value & 0x7F | _MORE)
        value >>= 7
    out.append(value)


def write_text(out: bytearray, text: str) -> None:
    """Append UTF-8 text behind its length in bytes."""
    encoded = text.encode()
    write_uint(out, len(encoded))
    out += encoded


def write_any(out: bytearray, value: object) -> None:
    """Append an Any value as JavaScript would: a whole number below 2**31 as integer, others as short as is exact."""
    if value is None or isinstance(value, bool):
        out.append(_NULL if value is None else _FALSE - value)
    elif isinstance(value, int | float):
        _write_number(out, value)
    elif isinstance(value, str):
        out.append(_TEXT)
        write_text(out, value)
    elif isinstance(value, bytes | bytearray):
        out.append(_BYTES)
        write_uint(out, len(value))
        out += value
    elif isinstance(value, Mapping):
        out.append(OBJECT)
        write_uint(out, len(value))
        for key, one in value.items():
            write_text(out, str(key))
            write_any(out, one)
    elif isinstance(value, list | tuple):
        out.append(ARRAY)
        write_uint(out, len(value))
        for one in value:
            write_any(out, one)
    else:
        raise TypeError(f"{type(value).__name__} is no JSON value")


def _write_number(out: bytearray, value: float) -> None:
    if value == value // 1 and abs(value) < _INT_LIMIT:
        size = abs(int(value))
        out += bytes((_INT, (size & 0x3F) | (0x40 if value < 0 else 0) | (_MORE if size > 0x3F else 0)))  # noqa: PLR2004
        if size > 0x3F:  # noqa: PLR2004 - six bits beside the sign
            write_uint(out, size >> 6)
        return
    number = float(value)
    with suppress(OverflowError):
        short = pack(">f", number)
        if unpack(">f", short)[0] == number:
            out.append(_FLOAT32)
            out += short
            return
    out.append(_FLOAT64)
    out += pack(">d", number)
