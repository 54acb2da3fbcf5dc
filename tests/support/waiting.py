"""Waiting for what nothing announces, with a deadline."""

import asyncio
from collections.abc import Callable

_LOOK_S = 0.005


async def eventually(wanted: Callable[[], object], patience_s: float = 2.0) -> None:
    """Return once the condition holds; TimeoutError if it does not in time."""
    async with asyncio.timeout(patience_s):
        while not wanted():  # noqa: ASYNC110 - that is what this is for
            await asyncio.sleep(_LOOK_S)
