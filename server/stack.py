"""A stack deep enough for whatever nests in a document."""

import sys
from typing import Final

STACK_BYTES: Final = 1024**3
"""Address space, not memory: it grows as it is used."""


def deepen_stack() -> None:
    """Let the main thread's stack grow far, where the system lets it.

    yrs deletes shared types inside each other by recursion. Peers can build them level by level, so no single update
    shows it: 100,000 levels end a process that has the usual 8 MiB, and millions need far less than this.
    """
    if sys.platform == "linux":
        import resource  # noqa: PLC0415 - there is none elsewhere

        soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
        wanted = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
