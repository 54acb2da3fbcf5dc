"""Work in a process of its own: what holds the interpreter's lock for long would keep every room waiting."""

import asyncio
import gc
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from crdt.errors import CrdtError
from crdt.protocol import Reader, var_bytes, var_uint

_PACKAGES: Final = Path(__file__).parents[1]
_NICENESS: Final = 10


class ChildFailed(CrdtError):
    """The child broke down or ran out of time."""


async def answer_of(module: str, job: Sequence[bytes], *, limit_s: float) -> list[bytes]:
    """What a module answers that ends in `sys.exit(serve(...))`; its process is ended when the caller is cancelled.

    Raises:
        ChildFailed: It has no answer.

    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        cwd=_PACKAGES,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(limit_s):
            output, words = await child.communicate(_packed(job))
    except TimeoutError as error:
        raise ChildFailed(f"{module} takes longer than {limit_s:.0f} s") from error
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await asyncio.shield(child.wait())
    if child.returncode != 0:
        last = words.decode(errors="replace").strip().rpartition("\n")[2]
        raise ChildFailed(f"{module} ended with code {child.returncode}: {last}")
    return _unpacked(output)


def serve(work: Callable[[list[bytes]], Sequence[bytes]]) -> int:
    """Do the job on the standard input, in the child; the exit code."""
    os.nice(_NICENESS)
    gc.disable()  # Millions of small objects, none in a cycle; the process ends with the job.
    sys.stdout.buffer.write(_packed(work(_unpacked(sys.stdin.buffer.read()))))
    return 0


def _packed(parts: Sequence[bytes]) -> bytes:
    return b"".join((var_uint(len(parts)), *map(var_bytes, parts)))


def _unpacked(data: bytes) -> list[bytes]:
    reader = Reader(data)
    return [reader.var_bytes() for _ in range(reader.var_uint())]
