import datetime as dt

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from jobs.pauses import Held, Kind, Pause, Scope, drop_pauses, put_pause, read_pauses, refuse
from tests.jobs.builders import START, Clock


async def refused(engine: AsyncEngine, clock: Clock, asked_s: float | None = None) -> float:
    """For how long a maker that refuses now is left alone (seconds)."""
    async with engine.begin() as connection:
        until = await connection.run_sync(refuse, "fake", asked_s, clock(), 0.0)
    return (until - clock()).total_seconds()


async def test_a_maker_that_says_nothing_is_left_alone_twice_as_long_each_time_up_to_a_minute(
    engine: AsyncEngine,
) -> None:
    clock, lengths = Clock(), []
    for _ in range(6):
        lengths.append(await refused(engine, clock))
        clock.advance(lengths[-1] + 1)
    assert lengths == [5, 10, 20, 40, 60, 60]
    clock.advance(600)
    assert await refused(engine, clock) == 5


async def test_calls_that_had_left_before_do_not_make_a_pause_longer_unless_the_maker_asks(engine: AsyncEngine) -> None:
    clock = Clock()
    assert await refused(engine, clock) == 5
    clock.advance(1)
    assert await refused(engine, clock) == 4
    assert await refused(engine, clock, 2) == 4
    assert await refused(engine, clock, 30) == 30


@pytest.mark.parametrize(("asked_s", "length_s"), [(7, 7), (10_000, 300), (0, 0.2)])
async def test_a_maker_is_left_alone_for_as_long_as_it_asks_within_bounds(
    engine: AsyncEngine, asked_s: float, length_s: float
) -> None:
    assert await refused(engine, Clock(), asked_s) == length_s


async def test_a_pause_that_is_over_holds_nothing_and_a_resume_ends_every_kind(engine: AsyncEngine) -> None:
    clock = Clock()
    until = START + dt.timedelta(seconds=10)
    async with engine.begin() as connection:
        await connection.run_sync(put_pause, Pause(Scope.PROVIDER, "fake", Kind.OPERATOR, until, "", "Ada", START))
        await connection.run_sync(refuse, "fake", 60, START, 0.0)
        assert len((await connection.run_sync(read_pauses, clock())).pauses) == 2
        clock.advance(11)
        held = await connection.run_sync(read_pauses, clock())
        assert [pause.kind for pause in held.pauses] == [Kind.RATE_LIMIT]
        assert await connection.run_sync(drop_pauses, Scope.PROVIDER, "fake") == 2
        assert not (await connection.run_sync(read_pauses, clock())).pauses


def test_what_an_operator_paused_is_told_before_what_a_maker_asked_for() -> None:
    operator = Pause(Scope.WORKFLOW, "wf", Kind.OPERATOR, None, "", None, START)
    maker = Pause(Scope.PROVIDER, "fake", Kind.RATE_LIMIT, START, "", None, START)
    held = Held((maker, operator))
    found = [held.of("fake", "wf"), held.of("fake", "other"), held.of("other", "wf"), held.of("other", "other")]
    assert found == [operator, maker, operator, None]
