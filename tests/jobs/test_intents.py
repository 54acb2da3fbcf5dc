import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import IntentRefused, RunNotFound, StaleRequest
from jobs.intents import CancelIntent, RunIntent, intent_id_of, parse_intent, refusal_of
from jobs.requests import UNSET
from providers.errors import UnknownModel, UnknownProvider

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("value", "intent"),
    [
        ({"id": "i", "after": None}, RunIntent("i", None)),
        ({"id": "i", "after": "run"}, RunIntent("i", "run")),
        ({"id": "i"}, RunIntent("i", UNSET)),
        ({"id": "i", "provider": "", "model": "m"}, RunIntent("i", UNSET, None, "m")),
        ({"id": "i", "by": {"name": "Ann", "id": 5}}, RunIntent("i", UNSET, by={"name": "Ann"})),
        ({"id": "i", "cancel": "run", "by": 7}, CancelIntent("i", "run")),
    ],
)  # fmt: skip
def test_an_intent_is_read(value: Any, intent: object) -> None:
    assert parse_intent(value) == intent


@given(
    JSON
    | st.fixed_dictionaries(
        {}, optional={"id": JSON, "after": JSON, "cancel": JSON, "provider": JSON, "model": JSON, "by": JSON}
    )
)
def test_whatever_a_peer_writes_is_an_intent_or_refused(value: Any) -> None:
    intent_id_of(value)
    with contextlib.suppress(IntentRefused):
        assert parse_intent(value).id == value["id"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StaleRequest(None), "stale-request"),
        (RunNotFound("r"), "run-not-found"),
        (UnknownProvider("x", []), "unknown-provider"),
        (UnknownModel("x", "m", []), "unknown-model"),
        (IntentRefused("budget", "Enough."), "budget"),
    ],
)
def test_an_error_becomes_a_refusal_with_a_code(error: Exception, code: str) -> None:
    refusal = refusal_of(error, "n")
    assert refusal is not None
    assert (refusal.node_id, refusal.code, refusal.message) == ("n", code, str(error))


def test_a_bug_is_no_refusal() -> None:
    assert refusal_of(KeyError("x"), "n") is None
