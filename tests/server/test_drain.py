import asyncio
import time

import pytest

from crdt.peer import Peer
from server.drain import EACH_S, drain


class TimedSocket:
    def __init__(self) -> None:
        self.closed: list[tuple[float, int, str]] = []

    def write(self, frames: bytes) -> None: ...

    def close(self, code: int, reason: str) -> None:
        self.closed.append((time.monotonic(), code, reason))


@pytest.mark.parametrize(("people", "window_s"), [(0, 1.0), (1, 1.0), (50, 10.0), (50, 0.1), (50, 0.0), (7, 0.05)])
async def test_everybody_is_told_once_to_come_back_spread_over_the_window(people: int, window_s: float) -> None:
    sockets = [TimedSocket() for _ in range(people)]
    begun = time.monotonic()
    await drain([Peer(socket) for socket in sockets], window_s)
    assert [len(socket.closed) for socket in sockets] == [1] * people
    assert {(code, reason.partition(":")[0]) for s in sockets for _, code, reason in s.closed} <= {(1012, "restart")}
    spread_s = min(window_s, people * EACH_S)
    steps = {round(at - begun, 3) for socket in sockets for at, _, _ in socket.closed}
    assert len(steps) >= min(people, spread_s / 0.03)


async def test_who_leaves_first_is_left_to_chance() -> None:
    async def order() -> list[int]:
        sockets = [TimedSocket() for _ in range(40)]
        await drain([Peer(socket) for socket in sockets], 0.0)
        return sorted(range(40), key=lambda index: sockets[index].closed[0][0])

    orders = await asyncio.gather(order(), order())
    assert orders[0] != orders[1]
