"""Writes that come while one is under way are committed together with the next."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST: Final = 64


class _Entry(Generic[Item, Result]):
    def __init__(self, item: Item) -> None:
        self.item = item
        self.done = False
        self.result: Result | None = None
        self.error: Exception | None = None


class Gathering(Generic[Item, Result]):
    """Whoever comes first does the work of all that wait, in the order they came.

    Args:
        together: Does the work of several; the results in the same order. Its error is everybody's.

    """

    def __init__(self, together: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]) -> None:
        self._together = together
        self._turn = asyncio.Lock()
        self._waiting: list[_Entry[Item, Result]] = []

    async def do(self, item: Item) -> Result:
        """Do the work of one, together with whatever else waits.

        Raises:
            Exception: As `together`.

        """
        entry: _Entry[Item, Result] = _Entry(item)
        self._waiting.append(entry)
        try:
            async with self._turn:
                if not entry.done:
                    await self._work()
        finally:
            if not entry.done:
                # Cancelled: what others wait for is left to the next of them.
                self._waiting.remove(entry)
        if entry.error is not None:
            raise entry.error
        return entry.result  # type: ignore[return-value] # It is done, and did not fail.

    async def _work(self) -> None:
        batch = self._waiting[:MOST]
        try:
            results = await self._together([entry.item for entry in batch])
        except Exception as error:  # noqa: BLE001 - each of them raises it
            for entry in batch:
                entry.error = error
        else:
            for entry, result in zip(batch, results, strict=True):
                entry.result = result
        for entry in batch:
            entry.done = True
        self._waiting = [entry for entry in self._waiting if not entry.done]
