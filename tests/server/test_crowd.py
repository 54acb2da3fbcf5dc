import math
from contextlib import ExitStack

import pytest

from server.crowd import MOST_REMEMBERED, Bounds, Busy, Crowd
from server.limits import Allowance, Rate

PERSON = Allowance(Rate(per_s=10, burst=10))


def test_beyond_its_bounds_nobody_is_let_in_until_somebody_goes() -> None:
    crowd = Crowd(Bounds(connections=3, room_connections=2))
    with ExitStack() as people:
        last = people.enter_context(crowd.admit("a", ""))
        people.enter_context(crowd.admit("a", ""))
        with pytest.raises(Busy, match="canvas"):
            people.enter_context(crowd.admit("a", ""))
        people.enter_context(crowd.admit("b", ""))
        with pytest.raises(Busy, match="server"):
            people.enter_context(crowd.admit("c", ""))
        assert (last, crowd.count) == (last, 3)
    with crowd.admit("a", ""), crowd.admit("a", ""):
        assert crowd.count == 2
    assert crowd.count == 0


def spend(crowd: Crowd, person: str) -> float:
    with crowd.admit("a", person) as visit:
        visit.meter.messages = -20
        return visit.meter.settle(crowd.clock())


def test_coming_back_at_once_brings_no_new_burst() -> None:
    crowd = Crowd(Bounds(person=PERSON), clock=lambda: 0.0)
    assert [spend(crowd, "ada") > 0 for _ in range(2)] == [True, True]
    assert spend(crowd, "") == 0
    assert 0 < spend(crowd, "bob") < math.inf


def test_a_visit_that_becomes_somebody_elses_spends_what_they_have() -> None:
    crowd = Crowd(Bounds(person=PERSON), clock=lambda: 0.0)
    spend(crowd, "ada")
    with crowd.admit("a", "bob") as visit:
        visit.belongs_to("ada")
        visit.meter.messages = -1
        assert visit.meter.settle(0.0) > 0
    assert spend(crowd, "bob") > 0


def test_only_so_many_of_those_who_left_are_remembered() -> None:
    crowd = Crowd(clock=lambda: 0.0)
    for number in range(MOST_REMEMBERED + 50):
        with crowd.admit("a", str(number)):
            pass
    assert len(crowd._gone) == MOST_REMEMBERED
    assert not crowd._people
