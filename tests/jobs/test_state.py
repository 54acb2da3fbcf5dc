import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import IllegalTransition
from jobs.policy import RetryPolicy, run_error
from jobs.requests import first_state
from jobs.run import Run, applied, node_patch, parked, resumed
from jobs.state import (
    TERMINAL,
    TRANSITIONS,
    Accepted,
    Answered,
    Cancelled,
    Completed,
    Event,
    Failed,
    FellBack,
    Heard,
    Incident,
    Interrupted,
    Requested,
    RetryScheduled,
    Stage,
    StageEntered,
    Started,
    Status,
    StoredImage,
    event_payload,
    transition,
)
from providers.base import Cost
from providers.errors import ErrorClass, ErrorKind, ProviderError
from tests.jobs.builders import START, request

ERROR = run_error(ProviderError("Overloaded.", ErrorClass.TEMPORARY, billing_ambiguous=True), Stage.GENERATING)
IMAGE = StoredImage(0, "w/r.png", "/w/r.png", "w/r-t.webp", "/w/r-t.webp", 2, 1, "image/png", 9, "0")
LATER = START + dt.timedelta(seconds=30)

EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.just(Requested()),
    st.builds(Started, worker=st.sampled_from(["w1", "w2"])),
    st.builds(StageEntered, stage=st.sampled_from(list(Stage))),
    st.builds(Accepted, remote_id=st.just("remote"), webhook_promised=st.booleans(), resume_at=st.just(LATER)),
    st.builds(Answered, cost=st.builds(Cost, usd_micros=st.integers(0, 10**9), source=st.just("price"))),
    st.just(RetryScheduled(ERROR, LATER)),
    st.just(Heard("msg_1", "processing")),
    st.just(Incident("polled", "It had to be polled.")),
    st.just(FellBack("demo", "demo-1", ERROR)),
    st.builds(Interrupted, billing_ambiguous=st.booleans()),
    st.just(Completed((IMAGE,), Cost(7, "price"), ("Adapted.",))),
    st.just(Failed(ERROR)),
    st.just(Cancelled({"name": "Ann"})),
)


def fresh() -> Run:
    return first_state(request(), "run", None, START, "token")


def walk(events: list[Event]) -> list[Run]:
    """Every state of a run to which these events happen, as far as they may."""
    states = [fresh()]
    for number, event in enumerate(events, start=1):
        try:
            states.append(applied(states[-1], event, START + dt.timedelta(seconds=number)))
        except IllegalTransition:
            continue
    return states


@given(st.lists(EVENTS, max_size=30))
def test_terminal_states_never_change(events: list[Event]) -> None:
    states = walk(events)
    ended = [state for state in states if state.status.terminal]
    assert len(ended) <= 1
    assert not ended or ended[0] is states[-1]


@given(st.lists(EVENTS, max_size=30))
def test_numbers_have_no_gap_and_attempts_never_fall(events: list[Event]) -> None:
    states = walk(events)
    assert [state.seq for state in states] == list(range(1, len(states) + 1))
    attempts = [state.attempt for state in states]
    assert attempts == sorted(attempts)


@given(st.lists(EVENTS, max_size=30))
def test_a_completed_run_has_a_picture_and_no_other_has(events: list[Event]) -> None:
    for state in walk(events):
        assert (state.image_url is not None) == (state.status is Status.COMPLETED)
        assert (state.error is not None) == (state.status is Status.FAILED)
        assert (state.finished_at is not None) == state.status.terminal


@given(st.lists(EVENTS, max_size=30))
def test_an_ended_or_parked_run_is_in_nobodys_hands(events: list[Event]) -> None:
    for state in walk(events):
        if state.status.terminal or state.status is Status.PENDING or state.resume_at is not None:
            assert state.worker is None


@given(st.lists(EVENTS, max_size=30))
def test_costs_only_ever_add_up(events: list[Event]) -> None:
    costs = [state.cost_usd_micros or 0 for state in walk(events)]
    assert costs == sorted(costs)


@given(st.lists(EVENTS, max_size=30))
def test_what_the_node_shows_changes_at_pending_running_and_the_end_only(events: list[Event]) -> None:
    patches = [node_patch(state) for state in walk(events)]
    different = [patch for index, patch in enumerate(patches) if index == 0 or patch != patches[index - 1]]
    assert len(different) <= 3
    assert len({(patch["runSeq"], patch["updatedAt"]) for patch in patches}) <= 2


@given(EVENTS)
def test_every_payload_is_plain_json(event: Event) -> None:
    payload = event_payload(event)
    assert json.loads(json.dumps(payload)) == payload


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("kind", Event.__args__)
def test_exactly_the_listed_transitions_exist(status: Status, kind: type[Event]) -> None:
    event = object.__new__(kind)
    if (status, kind) in TRANSITIONS:
        assert transition(status, event) is TRANSITIONS[status, kind]
    else:
        with pytest.raises(IllegalTransition):
            transition(status, event)


def test_no_transition_leaves_a_terminal_state_and_every_other_can_end() -> None:
    assert not {status for status, _ in TRANSITIONS} & TERMINAL
    for status in set(Status) - TERMINAL:
        reached = {after for (before, _), after in TRANSITIONS.items() if before is status}
        assert {Status.FAILED, Status.CANCELLED} <= reached


def test_ambiguous_billing_is_noted_in_the_event() -> None:
    payload = event_payload(Failed(ERROR))
    assert payload["error"] == {
        "code": "temporary",
        "message": "Overloaded.",
        "retryable": True,
        "action": "retry",
        "class": "TEMPORARY",
        "stage": "generating",
        "billingAmbiguous": True,
    }


def test_a_poll_keeps_the_attempt_and_forgives_failures() -> None:
    accepted = applied(
        applied(fresh(), Started("w1"), START), Accepted("r", webhook_promised=False, resume_at=LATER), START
    )
    failed = applied(resumed(accepted, "w2", START), RetryScheduled(ERROR, LATER), START)
    assert (failed.failures, failed.stage, failed.remote_id, failed.parked_remotely) == (1, Stage.WAITING, "r", True)
    polled = parked(resumed(failed, "w3", START), LATER, START)
    assert (polled.attempt, polled.failures, polled.crashes, polled.polls) == (1, 0, 0, 1)


def test_a_failed_run_shows_its_error_and_a_cancelled_one_none() -> None:
    begun = applied(fresh(), Started("w"), START)
    assert node_patch(applied(begun, Failed(ERROR), LATER))["error"] == {
        "code": "temporary", "message": "Overloaded.", "retryable": True, "action": "retry",
    }  # fmt: skip
    assert node_patch(applied(begun, Cancelled(), LATER))["error"] is None


def test_the_model_may_hold_colons() -> None:
    run = first_state(request(provider="a", model="b:c:d"), "run", None, START, "token")
    assert (run.provider, run.model) == ("a", "b:c:d")


def test_defaults_allow_three_attempts() -> None:
    assert RetryPolicy().max_attempts == 3
    assert ErrorKind.TIMEOUT.value == "TIMEOUT"
