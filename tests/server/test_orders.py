import pytest

from crdt.json import Json
from jobs.errors import IntentRefused, RunNotFound, StaleRequest
from jobs.intents import CancelIntent, RunIntent
from server.orders import field_path, merge_spec
from tests.server.api import Api, node


def test_what_is_given_wins_over_the_node_and_null_takes_away() -> None:
    data: dict[str, Json] = {
        "prompt": "a fox",
        "negativePrompt": "dogs",
        "params": {"seed": 7, "quality": "high", "size": ""},
    }
    assert merge_spec({}, data) == {"basePrompt": "a fox", "negativePrompt": "dogs", "seed": 7, "quality": "high"}
    given: dict[str, Json] = {"basePrompt": "an owl", "quality": None, "n": 2}
    assert merge_spec(given, data) == {"basePrompt": "an owl", "negativePrompt": "dogs", "seed": 7, "n": 2}


def test_a_ratio_that_is_asked_for_wins_over_the_nodes_size() -> None:
    data: dict[str, Json] = {"prompt": "x", "params": {"size": "512x512"}}
    assert merge_spec({"aspectRatio": "1:2"}, data) == {"basePrompt": "x", "aspectRatio": "1:2"}
    both: dict[str, Json] = {"aspectRatio": "1:2", "size": "256x512"}
    assert merge_spec(both, data) == {"basePrompt": "x", **both}


def test_nodes_that_hold_nonsense_are_read_as_empty() -> None:
    assert merge_spec({}, {"params": [1], "prompt": None}) == {}


def test_a_wrong_field_is_named_where_it_was_read() -> None:
    assert field_path("size", {"size": "x"}) == "promptSpec.size"
    assert field_path("size", {}) == "data.params.size"
    assert field_path("basePrompt", {}) == "data.prompt"


async def test_an_intent_makes_the_run_that_the_route_would_make(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    await api.services.orders.ask(workflow_id, node_id, RunIntent("i1", after=None, by={"name": "Ada"}))
    runs = (await api.get(f"/api/workflows/{workflow_id}/nodes/{node_id}/runs")).json()["runs"]
    assert [(run["after"], run["requestedBy"]) for run in runs] == [(None, {"name": "Ada"})]
    with pytest.raises(StaleRequest):
        await api.services.orders.ask(workflow_id, node_id, RunIntent("i2", after="older"))


async def test_an_intent_cancels_only_runs_of_its_own_node(api: Api) -> None:
    workflow_id = await api.workflow(node("a", prompt="x"), node("b", prompt="x"))
    job = await api.run(workflow_id, "a")
    with pytest.raises(IntentRefused, match="not this node's"):
        await api.services.orders.ask(workflow_id, "b", CancelIntent("i1", job["jobId"]))
    with pytest.raises(RunNotFound):
        await api.services.orders.ask(workflow_id, "a", CancelIntent("i2", "none"))
    await api.services.orders.ask(workflow_id, "a", CancelIntent("i3", job["jobId"]))
    assert (await api.finished(job["jobId"]))["status"] in {"cancelled", "completed"}


async def test_an_intent_without_a_prompt_is_refused_in_words(api: Api) -> None:
    workflow_id = await api.workflow(node("a"))
    with pytest.raises(IntentRefused, match="a prompt is required"):
        await api.services.orders.ask(workflow_id, "a", RunIntent("i1"))
