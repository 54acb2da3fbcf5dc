"""Giving memory back to the system: the C library keeps what was freed, in the belief that it is wanted again soon."""

import ctypes
import sys


def give_back() -> None:
    """Return the free pages of the heap; does nothing where the C library has no way to.

    Takes some milliseconds and does not hold the interpreter's lock meanwhile: call it from a thread.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not and needs none.
        if trim is not None:
            trim(0)
