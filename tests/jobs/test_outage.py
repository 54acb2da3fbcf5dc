import asyncio
import sqlite3

import pytest
import sqlalchemy as sa

from jobs.errors import DatabaseAway
from jobs.outage import Patience, outlast, unavailable, uncancelled
from tests.jobs.builders import Slept

AWAY = sa.exc.OperationalError("insert", {}, sqlite3.OperationalError("database is locked"))


@pytest.mark.parametrize("error", [AWAY, ConnectionRefusedError(), TimeoutError(), sa.exc.TimeoutError()])
async def test_a_write_is_tried_until_the_database_is_back(error: Exception) -> None:
    tries: list[bool] = []

    async def write(again: bool) -> str:  # noqa: FBT001
        tries.append(again)
        if len(tries) < 4:
            raise error
        return "written"

    slept = Slept()
    assert await outlast(write, Patience(), slept) == "written"
    assert tries == [False, True, True, True]
    assert slept.times == sorted(slept.times)


async def test_patience_ends() -> None:
    async def write(_again: bool) -> None:  # noqa: FBT001
        raise AWAY

    slept = Slept()
    with pytest.raises(DatabaseAway):
        await outlast(write, Patience(total_s=10.0), slept)
    assert 10 <= sum(slept.times) < 12


async def test_what_is_no_outage_is_raised_at_once() -> None:
    async def write(_again: bool) -> None:  # noqa: FBT001
        raise sa.exc.IntegrityError("insert", {}, Exception())

    with pytest.raises(sa.exc.IntegrityError):
        await outlast(write, Patience(), Slept())
    assert not unavailable(ValueError())


async def test_a_write_into_a_black_hole_is_given_up_after_its_time() -> None:
    async def write(_again: bool) -> None:  # noqa: FBT001
        await asyncio.Event().wait()

    with pytest.raises(DatabaseAway):
        await outlast(write, Patience(total_s=0.0, write_limit_s=0.01), Slept())


async def test_a_cancel_waits_for_the_write_and_is_raised_then_however_often_it_comes() -> None:
    began, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def write() -> None:
        began.set()
        await go.wait()
        ended.set()

    task = asyncio.ensure_future(uncancelled(write()))
    await began.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_between_two_tries_a_write_can_be_cancelled() -> None:
    waiting = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def write(_again: bool) -> None:  # noqa: FBT001
        raise AWAY

    task = asyncio.ensure_future(outlast(write, Patience(), sleep))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
