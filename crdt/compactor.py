"""Compaction in a process of its own: it takes seconds and hundreds of megabytes, and holds the interpreter's lock.

`python -m crdt.compactor` reads one job from its standard input and writes the outcome.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from pycrdt import Doc

from crdt.archive import Archive
from crdt.canvas import CanvasDoc
from crdt.child import ChildFailed, answer_of, serve
from crdt.compaction import compact, sound
from crdt.errors import CrdtError
from crdt.guard import Guard
from crdt.pieces import pieces
from crdt.protocol import Reader, var_uint
from crdt.rows import Size
from crdt.update import decode_structs, decode_vector, encode_vector

TIME_LIMIT_S = 300.0


class CompactionFailed(CrdtError):
    """The document stays as it is: the compactor broke down, ran out of time, or its work did not pass the check."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """A compacted document, to be stored and swapped in together with its guard."""

    state: bytes
    """Yjs update (v1)."""
    vector: bytes
    """State vector of `state`: what came since is `doc.get_update(vector)`."""
    guard: bytes
    """`Guard.encode`."""
    archive: bytes
    """`Archive.encode`, of this compaction alone."""
    size: Size
    pieces: tuple[bytes, ...]
    """Yjs updates (v1) that make `state` when applied in order."""


def compacted(updates: Sequence[bytes], frontier: bytes, guard: bytes = b"") -> Compacted:
    """Compact and check.

    Args:
        updates: Yjs updates (v1) of a whole document; what waits for a parent in them is left out.
        frontier: State vector the room had a window ago.
        guard: Of the compaction before; empty for none.

    Raises:
        CompactionFailed: The compacted document is not the same document.
        BadUpdate: The state holds something this code does not know.

    """
    before = Guard.decode(guard) if guard else None
    state = _document(updates).get_update()
    made = compact(state, decode_vector(frontier), before.anchors if before is not None else None)
    parts = tuple(pieces(made.state))
    if not (sound(state, made.state) and sound(state, _document(parts).get_update())):
        raise CompactionFailed("the compacted document is not the same document")
    return Compacted(
        made.state,
        encode_vector(made.vector),
        Guard.after(made, before).encode(),
        Archive(made.retired).encode(),
        Size(len(made.state), made.structs, made.keys, sum(made.vector.values())),
        parts,
    )


async def compact_apart(
    updates: Sequence[bytes], frontier: bytes, guard: bytes = b"", *, limit_s: float = TIME_LIMIT_S
) -> Compacted:
    """As `compacted`, in a child process that is ended when the caller is cancelled.

    Raises:
        CompactionFailed: Also when the child broke down or ran out of time.

    """
    try:
        answer = await answer_of("crdt.compactor", [frontier, guard, *updates], limit_s=limit_s)
    except ChildFailed as error:
        raise CompactionFailed(str(error)) from error
    numbers, state, vector, after, archive, *parts = answer
    reader = Reader(numbers)
    return Compacted(state, vector, after, archive, Size(*(reader.var_uint() for _ in range(4))), tuple(parts))


def may_swap(guard: Guard, missed: bytes) -> bool:
    """Whether what came while the compactor worked can be applied to the compacted document.

    Args:
        guard: Of the compacted document.
        missed: Yjs update (v1): what the live document has beyond the compacted one.

    """
    return not guard.concerns(decode_structs(missed))


def _document(updates: Sequence[bytes]) -> CanvasDoc:
    doc: CanvasDoc = Doc()
    for update in updates:
        doc.apply_update(update)
    return doc


def _answer(job: list[bytes]) -> list[bytes]:
    frontier, guard, *updates = job
    made = compacted(updates, frontier, guard)
    size = made.size
    numbers = b"".join(map(var_uint, (size.bytes, size.structs, size.keys, size.units)))
    return [numbers, made.state, made.vector, made.guard, made.archive, *made.pieces]


if __name__ == "__main__":
    sys.exit(serve(_answer))
