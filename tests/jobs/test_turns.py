from collections import Counter
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobs.limits import Call, Limit, Limits, Rate
from jobs.turns import Choice, Desk, Waiting, choose, places

NO_LIMITS = Limits({})


def waiting(run_id: str, party: str = "ann", *, canvas: str = "", at: float = 0.0, **options: Any) -> Waiting:
    provider, model = options.pop("provider", "fake"), options.pop("model", "fake-1")
    order = (options.pop("priority", 0), options.pop("rank", 0), at)
    return Waiting(run_id, provider, model, party, canvas or f"{party}'s", *order, **options)


def desk(limits: Limits = NO_LIMITS, capacity: int = 100, **known: Any) -> Desk:
    return Desk(1_000.0, limits, capacity, **known)


def ids(choice: Choice) -> list[str]:
    return [grant.waiting.run_id for grant in choice.grants]


def batch(party: str, count: int, **options: Any) -> list[Waiting]:
    return [waiting(f"{party}{index:03}", party, at=float(index), **options) for index in range(count)]


def test_the_older_goes_first() -> None:
    choice = choose([waiting("b", at=2), waiting("a", at=1)], desk(), 0)
    assert ids(choice) == ["a", "b"]


def test_a_higher_priority_goes_before_fairness_rank_and_age() -> None:
    runs = [waiting("a", "ann", at=1), waiting("b", "bob", at=9, priority=1, rank=5)]
    assert ids(choose(runs, desk(loads=Counter({("fake", "bob"): 50})), 0)) == ["b", "a"]


def test_a_rank_counts_before_age_among_runs_of_one_person() -> None:
    assert ids(choose([waiting("a", at=1), waiting("b", at=2, rank=-1)], desk(), 0)) == ["b", "a"]


def test_people_take_turns_and_canvases_of_one_person_do() -> None:
    runs = [*batch("ann", 4, canvas="x"), waiting("ann-y", "ann", canvas="y", at=50), waiting("bob", "bob", at=99)]
    assert ids(choose(runs, desk(), 0)) == ["ann000", "bob", "ann-y", "ann001", "ann002", "ann003"]


def test_who_had_calls_a_moment_ago_stands_back_when_nothing_is_in_flight() -> None:
    runs = [waiting("a", "ann", at=1), waiting("b", "bob", at=2)]
    assert ids(choose(runs, desk(recent=Counter({("fake", "ann"): 3})), 0)) == ["b", "a"]


def test_a_batch_of_500_leaves_room_for_the_click_of_another() -> None:
    free = desk(capacity=40)
    first = choose(batch("ann", 500), free, 0)
    assert (len(first.grants), first.left) == (30, True)
    assert ids(choose([*batch("ann", 500)[30:], waiting("click", "bob", at=999)], free, 0)) == ["click"]


def test_a_maker_at_its_limit_holds_up_its_own_runs_only() -> None:
    limits = Limits({"slow": Limit(in_flight=2), "fake:big": Limit(in_flight=1)})
    runs = [*batch("ann", 5, provider="slow"), *batch("bob", 3, model="big"), waiting("c", "cid", at=99)]
    choice = choose(runs, desk(limits), 0)
    assert Counter(grant.waiting.provider for grant in choice.grants) == {"slow": 2, "fake": 2}
    assert "c" in ids(choice)
    assert choice.left


def test_a_rate_gives_moments_up_to_the_horizon_and_says_when_the_next_is() -> None:
    limits = Limits({"fake": Limit((Rate(4, 8.0),))})
    choice = choose(batch("ann", 9), desk(limits), 0.1)
    assert [grant.start for grant in choice.grants] == [1_000.0, 1_000.0]
    rate = Rate(4, 8.0)
    assert choice.next_at == 1_000.0 + rate.span_s / 4


def test_the_limit_of_a_model_counts_besides_that_of_its_maker() -> None:
    limits = Limits({"fake": Limit((Rate(100, 10.0),)), "fake:big": Limit((Rate(1, 10.0),))})
    calls = {"fake": [Call(999.0)], "fake:big": [Call(999.0)]}
    choice = choose([waiting("a", model="big"), waiting("b", at=5)], desk(limits, calls=calls), 0)
    assert ids(choice) == ["b"]


runs_strategy = st.lists(
    st.builds(
        lambda party, canvas, provider, model, priority, rank, at: (party, canvas, provider, model, priority, rank, at),
        st.sampled_from("abc"),
        st.sampled_from("xy"),
        st.sampled_from(["p", "q"]),
        st.sampled_from(["m", "n"]),
        st.integers(-1, 1),
        st.integers(-1, 1),
        st.integers(0, 5),
    ),
    max_size=30,
)
limit_strategy = st.builds(
    lambda count, at_once: Limit((Rate(count, 10.0),) if count else (), at_once),
    st.one_of(st.none(), st.integers(1, 6)),
    st.one_of(st.none(), st.integers(1, 6)),
)


@given(runs_strategy, st.dictionaries(st.sampled_from(["p", "q", "p:m", "q:n"]), limit_strategy), st.integers(0, 20))
def test_every_choice_keeps_the_limits_and_the_order(
    made: list[tuple[Any, ...]], scopes: dict[str, Limit], capacity: int
) -> None:
    runs = [
        Waiting(str(index), provider, model, party, canvas, priority, rank, float(at))
        for index, (party, canvas, provider, model, priority, rank, at) in enumerate(made)
    ]
    at = desk(Limits(scopes), capacity)
    choice = choose(runs, at, 0.0)
    granted = [grant.waiting for grant in choice.grants]
    assert len({one.run_id for one in granted}) == len(granted) <= capacity
    assert choice.left == (len(granted) < len(runs))
    assert all(count <= at.share for count in Counter(one.party for one in granted).values())
    for scope, limit in scopes.items():
        mine = [one for one in granted if scope in {one.provider, f"{one.provider}:{one.model}"}]
        assert limit.in_flight is None or len(mine) <= limit.in_flight
        assert all(len(mine) <= rate.count for rate in limit.rates)
    for before, after in pairwise(granted):
        if before.line == after.line:
            assert before.place < after.place


@given(st.lists(st.sampled_from("abcd"), max_size=40), st.integers(1, 12))
def test_no_two_people_who_still_wait_differ_by_more_than_one_run(parties: list[str], width: int) -> None:
    runs = [waiting(str(index), party, at=float(index)) for index, party in enumerate(parties)]
    choice = choose(runs, desk(Limits({"fake": Limit(in_flight=width)})), 0.0)
    had = Counter(grant.waiting.party for grant in choice.grants)
    hungry = {party for party in parties if had[party] < parties.count(party)}
    assert all(had[party] - had[other] <= 1 for party in set(parties) for other in hungry)


def test_places_are_those_of_the_choice_and_say_how_long_it_may_take() -> None:
    limits = Limits({"fake": Limit(in_flight=2)})
    full = desk(limits, flights=Counter({"fake": 2}))
    found = places([*batch("ann", 5), waiting("b", "bob", at=99)], full, {"fake": 10.0}, 4)
    assert [(place.waiting.run_id, place.place, place.wait_s) for place in found] == [
        ("ann000", 1, 10.0),
        ("b", 2, 10.0),
        ("ann001", 3, 20.0),
        ("ann002", 4, 20.0),
    ]


def test_a_place_behind_a_rate_waits_for_its_moment_and_without_experience_there_is_no_estimate() -> None:
    rated = desk(Limits({"fake": Limit((Rate(2, 10.0),))}))
    found = places(batch("ann", 3), rated, {}, 100)
    assert [place.wait_s for place in found] == [0.0, Rate(2, 10.0).span_s / 2, Rate(2, 10.0).span_s]
    narrow = desk(Limits({"fake": Limit(in_flight=1)}), flights=Counter({"fake": 1}))
    assert [place.wait_s for place in places(batch("ann", 1), narrow, {}, 100)] == [None]
