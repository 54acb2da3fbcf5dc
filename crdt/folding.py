"""Folding a log into a snapshot in a process of its own: encoding a large document holds the interpreter's lock."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pycrdt import Doc, merge_updates

from crdt.child import answer_of, serve
from crdt.loading import waiting_of

if TYPE_CHECKING:
    from crdt.canvas import CanvasDoc

FOLD_BYTES: Final = 8 * 1024 * 1024
"""From this size on a snapshot is made apart: to encode a document takes some 2 ms for each megabyte."""
TIME_LIMIT_S: Final = 120.0


def folded(updates: Sequence[bytes]) -> bytes:
    """The document that Yjs updates (v1) make, as one update, with what waits for a parent."""
    doc: CanvasDoc = Doc()
    for update in updates:
        doc.apply_update(update)
    whole, rest = doc.get_update(), waiting_of(doc, updates).updates()
    return merge_updates(whole, *rest) if rest else whole


async def fold_apart(updates: Sequence[bytes]) -> bytes:
    """As `folded`, in a child process.

    Raises:
        ChildFailed: It broke down, or ran out of time.

    """
    (state,) = await answer_of("crdt.folding", updates, limit_s=TIME_LIMIT_S)
    return state


if __name__ == "__main__":
    sys.exit(serve(lambda updates: [folded(updates)]))
