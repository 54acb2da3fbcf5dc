"""Compaction in a process of its own: it takes seconds and hundreds of megabytes, and holds the interpreter's lock.

`python -m crdt.compactor` reads one job from its standard input and writes the outcome.
"""

import asyncio
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

from crdt.archive import Archive
from crdt.compaction import compact, sound
from crdt.errors import CrdtError
from crdt.guard import Guard
from crdt.protocol import Reader, var_bytes, var_uint
from crdt.update import decode, decode_vector, encode_vector

TIME_LIMIT_S = 300.0
_PACKAGES = Path(__file__).parents[1]
_NICENESS = 10


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
    structs: int
    keys: int


def compacted(state: bytes, frontier: bytes, guard: bytes = b"") -> Compacted:
    """Compact and check.

    Args:
        state: Yjs update (v1), encoded by a `Doc`.
        frontier: State vector the room had a window ago.
        guard: Of the compaction before; empty for none.

    Raises:
        CompactionFailed: The compacted document is not the same document.
        BadUpdate: The state holds something this code does not know.

    """
    before = Guard.decode(guard) if guard else None
    made = compact(state, decode_vector(frontier), before.anchors if before is not None else None)
    if not sound(state, made.state):
        raise CompactionFailed("the compacted document is not the same document")
    return Compacted(
        made.state,
        encode_vector(made.vector),
        Guard.after(made, before).encode(),
        Archive(made.retired).encode(),
        made.structs,
        made.keys,
    )


async def compact_apart(
    state: bytes, frontier: bytes, guard: bytes = b"", *, limit_s: float = TIME_LIMIT_S
) -> Compacted:
    """As `compacted`, in a child process that is ended when the caller is cancelled.

    Raises:
        CompactionFailed: Also when the child broke down or ran out of time.

    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "crdt.compactor",
        cwd=_PACKAGES,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(limit_s):
            output, words = await child.communicate(b"".join(map(var_bytes, (state, frontier, guard))))
    except TimeoutError as error:
        raise CompactionFailed(f"compaction takes longer than {limit_s:.0f} s") from error
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await asyncio.shield(child.wait())
    if child.returncode != 0:
        last = words.decode(errors="replace").strip().rpartition("\n")[2]
        raise CompactionFailed(f"the compactor ended with code {child.returncode}: {last}")
    reader = Reader(output)
    parts = [reader.var_bytes() for _ in range(4)]
    return Compacted(parts[0], parts[1], parts[2], parts[3], reader.var_uint(), reader.var_uint())


def may_swap(guard: Guard, missed: bytes) -> bool:
    """Whether what came while the compactor worked can be applied to the compacted document.

    Args:
        guard: Of the compacted document.
        missed: Yjs update (v1): what the live document has beyond the compacted one.

    """
    return not guard.concerns(decode(missed))


def _encoded(result: Compacted) -> Iterator[bytes]:
    for part in astuple(result):
        yield var_bytes(part) if isinstance(part, bytes) else var_uint(part)


def main() -> int:
    """Do the job on the standard input; the exit code."""
    os.nice(_NICENESS)
    gc.disable()  # Millions of small objects, none in a cycle; the process ends with the job.
    reader = Reader(sys.stdin.buffer.read())
    result = compacted(reader.var_bytes(), reader.var_bytes(), reader.var_bytes())
    sys.stdout.buffer.writelines(_encoded(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
