"""Values nested so deeply that whoever reads them overflows its stack: yrs here, and every browser in the room."""

from typing import Final

from crdt.lib0 import ARRAY, MAX_DEPTH, OBJECT
from crdt.update import decode

_CONTAINERS: Final = bytes((ARRAY, OBJECT))


def check_nesting(update: bytes) -> None:
    """Refuse an update (v1) that holds a value nested deeper than `MAX_DEPTH`; next to free for all but large ones.

    Each level costs a byte of its own, and most updates do not even have so many that could be one.

    Raises:
        BadUpdate: It does, or it may and cannot be read.

    """
    if len(update) > MAX_DEPTH and len(update) - len(update.translate(None, _CONTAINERS)) > MAX_DEPTH:
        decode(update)
