import asyncio
from typing import Any

from jobs.intents import Refusal
from jobs.notices import MAX_REFUSALS, Notices


class Told:
    """A room that remembers what the server told it, and when."""

    def __init__(self) -> None:
        self.states: list[Any] = []
        self.times: list[float] = []
        self.more = asyncio.Event()

    def set_server_state(self, state: Any) -> None:
        self.states.append(state)
        self.times.append(asyncio.get_running_loop().time())
        self.more.set()

    async def last(self, state: Any) -> None:
        async with asyncio.timeout(5):
            while not self.states or self.states[-1] != state:
                self.more.clear()
                await self.more.wait()


def notices(room: Told, interval_s: float = 0.03, refusal_s: float = 30.0) -> Notices:
    return Notices(room, interval_s, refusal_s)  # type: ignore[arg-type]


async def test_progress_is_written_at_most_so_often_and_the_latest_at_last() -> None:
    room = Told()
    told = notices(room)
    for step in range(50):
        told.progress("n", {"runId": "r", "progress": step})
    await room.last({"server": True, "runs": {"n": {"runId": "r", "progress": 49}}, "refusals": {}})
    assert len(room.states) == 2
    assert room.times[1] - room.times[0] >= 0.025


async def test_a_refusal_vanishes_after_its_time() -> None:
    room = Told()
    told = notices(room, 0, 0.03)
    told.refuse("i", Refusal("n", "stale-request", "Too late."))
    assert room.states[-1]["refusals"] == {"i": {"nodeId": "n", "code": "stale-request", "message": "Too late."}}
    await room.last(None)


async def test_refusals_are_bounded() -> None:
    room = Told()
    told = notices(room, 0)
    for number in range(MAX_REFUSALS + 50):
        told.refuse(f"i{number}", Refusal("n", "x", "x"))
    assert len(room.states[-1]["refusals"]) == MAX_REFUSALS
    told.close()


async def test_a_closed_room_is_told_nothing_more() -> None:
    room = Told()
    told = notices(room, 0.01)
    told.progress("n", {"runId": "r"})
    told.drop("n")
    told.close()
    assert told.run_of("n") is None
    assert len(room.states) == 1
