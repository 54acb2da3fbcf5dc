import asyncio
from collections.abc import Sequence

from jobs.gathering import MOST, Gathering


class Work:
    """Doubles numbers, when it is let; remembers what it did together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def together(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.begun.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return [2 * number for number in numbers]


async def test_what_comes_while_work_is_done_is_done_together_in_bounded_lots() -> None:
    work = Work()
    gathering = Gathering(work.together)
    first = asyncio.create_task(gathering.do(0))
    await work.begun.wait()
    others = [asyncio.create_task(gathering.do(number)) for number in range(1, MOST + 11)]
    work.go.set()
    assert await asyncio.gather(first, *others) == [2 * number for number in range(MOST + 11)]
    assert [len(batch) for batch in work.batches] == [1, MOST, 10]


async def test_one_that_goes_away_takes_nobody_with_it() -> None:
    work = Work()
    gathering = Gathering(work.together)
    first = asyncio.create_task(gathering.do(1))
    await work.begun.wait()
    others = [asyncio.create_task(gathering.do(number)) for number in (2, 3, 4)]
    work.begun.clear()
    first.cancel()
    await work.begun.wait()
    others[1].cancel()
    work.go.set()
    done = await asyncio.gather(first, *others, return_exceptions=True)
    assert [each for each in done if isinstance(each, int)] == [4, 8]
    assert work.batches == [[1], [2, 3, 4]]


async def test_a_failure_is_everybodys_and_the_next_begins_anew() -> None:
    work = Work()
    work.go.set()
    work.error = OSError("away")
    gathering = Gathering(work.together)
    for failed in await asyncio.gather(gathering.do(1), gathering.do(2), return_exceptions=True):
        assert failed is work.error
    work.error = None
    assert await gathering.do(3) == 6
