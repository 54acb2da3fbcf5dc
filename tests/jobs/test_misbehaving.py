"""A maker that misbehaves in every way, over real HTTP both ways, never leaves a run without a true end."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from jobs.actor import Done
from jobs.deliveries import Fate
from jobs.policy import RetryPolicy
from jobs.run import Run
from jobs.settlement import Callbacks
from jobs.state import Status
from jobs.tables import generated_images, run_costs, run_events, webhook_deliveries
from jobs.worker import Worker
from providers.errors import BadSignature
from providers.openai_background import OpenAIBackgroundProvider
from providers.registry import Registry
from server.webhooks import Call, Secrets, Webhooks
from tests.emulators.http import Exchange, HttpEmulator, Received
from tests.emulators.openai import Behaviour, Kind
from tests.emulators.openai_responses import OpenAIResponsesEmulator
from tests.jobs.builders import Studio, event_kinds, pending, rows, workplace
from tests.server.calling import SECRET

BACKGROUND, SYNC = "gpt-image-2-background", "gpt-image-2"
POLICY = RetryPolicy(base_s=0.02, cap_s=0.05, poll_max_s=0.05, attempt_limit_s=0.5, retry_after_cap_s=0.1, poll_limit=5)


@dataclass
class Door(HttpEmulator):
    """Where the maker calls: the real verification and records, behind a small server."""

    webhooks: Webhooks | None = None
    worker: Worker | None = None

    async def handle(self, request: Received, exchange: Exchange) -> None:
        assert self.webhooks is not None
        assert self.worker is not None
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        call = Call("openai", request.headers, request.body, query.get("run", ""), query.get("token", ""))
        try:
            receipt = await self.webhooks.receive(call)
        except BadSignature:
            await exchange.answer(401, {})
            return
        await exchange.answer(200, {})
        if receipt.fate is Fate.WOKEN and receipt.run is not None:
            await self.worker.wake(receipt.run.id)


@dataclass
class World:
    """A maker, our side of it, and a worker."""

    openai: OpenAIResponsesEmulator
    studio: Studio
    worker: Worker
    nodes: list[str] = field(default_factory=list)

    async def ask(self, model: str, prompt: str = "a fox") -> Run:
        """A run that is worked on."""
        self.nodes.append(f"n{len(self.nodes)}")
        run = await pending(self.studio.runs, provider="openai", model=model, node_id=self.nodes[-1], prompt=prompt)
        await self.worker.enqueue(run.id)
        return run

    async def ended(self, run: Run) -> Run:
        return await self.studio.hints.ended(self.studio.runs, run.id)

    async def taken(self, run: Run) -> str:
        """The maker's id, once it has taken a run and that is recorded."""
        now = await self.studio.hints.reached(self.studio.runs, run.id, lambda run: run.remote_id is not None)
        return now.remote_id or ""


@asynccontextmanager
async def world(engine: AsyncEngine, folder: Path, *, grace_s: float = 0.3) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        door = await stack.enter_async_context(Door().serving())
        maker = await stack.enter_async_context(
            OpenAIResponsesEmulator(secret=SECRET, hook=f"{door.origin}/webhooks/openai").serving()
        )
        provider = OpenAIBackgroundProvider("sk-test", maker.base_url, 2.0)
        stack.push_async_callback(provider.aclose)
        callbacks = Callbacks(lambda run: f"{door.origin}/webhooks/openai?run={run.id}", grace_s)
        place: Any = workplace(
            engine, folder, provider, f"memory://{folder.name}", policy=POLICY, callbacks=callbacks  # type: ignore[arg-type]
        )  # fmt: skip
        studio, worker = await stack.enter_async_context(place)
        secrets = Secrets({"openai": [SECRET]})
        door.webhooks = Webhooks(Registry([provider]), studio.runs, app_url=door.origin, secrets=secrets)
        door.worker = worker
        yield World(maker, studio, worker)


# A 429 pauses the maker for everybody: what its Retry-After means is in the tests of pauses.
SYNC_TROUBLE: dict[str, tuple[list[Behaviour], str]] = {
    "success": ([], "completed"),
    "429 then success": ([Behaviour.refuse(429, headers={"retry-after": "0.01"})], "completed"),
    "no credit": ([Behaviour.refuse(429, "insufficient_quota")], "quota"),
    "500 then success": ([Behaviour.refuse(500)], "completed"),
    "500 for ever": ([Behaviour.refuse(500)] * 3, "temporary"),
    "a gateway's page": ([Behaviour.text("<html>Bad gateway</html>", 502, "text/html")] * 3, "temporary"),
    "503 and nothing": (
        [Behaviour(Kind.REFUSE, status=503, body="", headers={"retry-after": "0.01"})] * 3,
        "temporary",
    ),
    "reset": ([Behaviour(Kind.RESET)] * 3, "temporary"),
    "broken off": ([Behaviour(Kind.BREAK_OFF)] * 3, "temporary"),
    "400": ([Behaviour.refuse(400, "invalid_value")], "bad_request"),
    "401": ([Behaviour.refuse(401, "invalid_api_key")], "auth_error"),
    "403": ([Behaviour.refuse(403)], "auth_error"),
    "404": ([Behaviour.refuse(404, "model_not_found")], "bad_request"),
    "413": ([Behaviour.refuse(413)], "bad_request"),
    "422": ([Behaviour.refuse(422)], "bad_request"),
    "refused": ([Behaviour.moderated("sexual")], "policy"),
    "cut": ([Behaviour(Kind.CUT)] * 3, "temporary"),
    "error in a stream": ([Behaviour(Kind.STREAM_ERROR, body={"error": {"code": "server_error"}})] * 3, "temporary"),
    "broken JSON": ([Behaviour.text('{"data": [')] * 3, "temporary"),
    "{}": ([Behaviour.text("{}")] * 3, "temporary"),
    "no picture": ([Behaviour(Kind.PLAIN, images=[])] * 3, "temporary"),
    "null picture": ([Behaviour(Kind.PLAIN, images=[None])] * 3, "temporary"),
    "no base64": ([Behaviour(Kind.PLAIN, images=["%%%"])] * 3, "temporary"),
    "half a picture": ([Behaviour(Kind.PLAIN, images=["iVBORw0KGgoAAAANSUhEUg=="])] * 3, "bad_image"),
    "a page": ([Behaviour.text("<html>hello</html>", 200, "text/html")] * 3, "temporary"),
    "too large": ([Behaviour(Kind.REFUSE, body="{}", headers={"content-length": "300000000"})] * 3, "temporary"),
    "dripping": ([Behaviour(Kind.DRIP)] * 3, "timeout"),
}


async def test_a_maker_that_answers_at_once(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    async with world(sqlite_engine, tmp_path) as made:
        asked = {}
        for name, (behaviours, _) in SYNC_TROUBLE.items():
            token = f"<{name}>"
            made.openai.script(*(replace(each, match=token) for each in behaviours))
            asked[name] = await made.ask(SYNC, f"a fox {token}")
        for name, (behaviours, expected) in SYNC_TROUBLE.items():
            check(await made.ended(asked[name]), expected, name)
            token = f"<{name}>"
            calls = [call for call in made.openai.asked if token in str(call.fields["prompt"])]
            wanted = len(behaviours) + (expected == "completed")
            assert len(calls) == (1 if expected == "bad_image" else wanted), name


def check(run: Run, expected: str, name: str) -> None:
    """A true end, and what a person can read and do about it."""
    if expected == "completed":
        assert (run.status, run.error) == (Status.COMPLETED, None), (name, run.error)
        assert run.image_url
        return
    assert (run.status, run.error and run.error.code) == (Status.FAILED, expected), (name, run.error)
    assert run.error is not None
    message = run.error.message
    assert "OpenAI" in message, (name, message)
    assert message.endswith("."), (name, message)
    assert len(message) > 20, (name, message)
    assert not any(word in message for word in ("Error", "Exception", "None", "Traceback", "object")), message


ASYNC_ENDS = {
    "completed": "completed",
    "completed:moderated": "policy",
    "completed:words": "policy",
    "completed:empty": "temporary",
    "completed:garbage": "temporary",
    "failed:server_error": "temporary",
    "failed:rate_limit_exceeded": "rate_limit",
    "failed:image_content_policy_violation": "policy",
    "failed:bio_policy": "policy",
    "failed:invalid_prompt": "bad_request",
    "failed:image_too_large": "bad_request",
    "incomplete:content_filter": "policy",
    "incomplete:max_output_tokens": "temporary",
    "cancelled": "permanent",
}


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
async def test_a_maker_that_calls_before_it_has_answered(
    sqlite_engine: AsyncEngine, tmp_path: Path, *, twice: bool
) -> None:
    """Each end, told by a call that is there before the id is; with another call after the end."""
    async with world(sqlite_engine, tmp_path, grace_s=60) as made:
        for how, expected in ASYNC_ENDS.items():
            made.openai.automatic = how
            run = await made.ask(BACKGROUND)
            check(await made.ended(run), expected, how)
            if twice:
                (remote_id, *_) = [key for key, each in made.openai.responses.items() if each.retrieved][-1:]
                before = await made.studio.runs.get(run.id)
                await made.openai.tell("response.completed", remote_id, times=2)
                await made.openai.tell("response.in_progress", remote_id, event_id=f"evt_late_{remote_id}")
                assert await made.studio.runs.get(run.id) == before
        assert set(made.openai.sent) == {200}
        # A job that broke down is asked for anew, at most twice; everything else costs one.
        broken = [how for how, end in ASYNC_ENDS.items() if end in {"temporary", "rate_limit"}]
        assert len(made.openai.responses) == len(ASYNC_ENDS) + 2 * len(broken)
        kinds = [row.kind for row in await rows(sqlite_engine, run_events)]
        assert "incident" not in kinds
        assert kinds.count("completed") == len(await rows(sqlite_engine, generated_images)) == 1
        assert len([row for row in await rows(sqlite_engine, run_costs) if row.usd_micros]) == 1


async def test_a_maker_that_never_calls_is_polled_and_found_out(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    async with world(sqlite_engine, tmp_path, grace_s=0.05) as made:
        for how, expected in (("completed", "completed"), ("failed:bio_policy", "policy")):
            run = await made.ask(BACKGROUND)
            made.openai.settle(await made.taken(run), how)
            check(await made.ended(run), expected, how)
            assert (await event_kinds(sqlite_engine, run.id)).count("incident") == 1


async def test_a_maker_that_never_finishes_is_given_up_and_told(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    async with world(sqlite_engine, tmp_path, grace_s=0.05) as made:
        run = await made.ask(BACKGROUND)
        check(await made.ended(run), "timeout", "never")
        assert made.openai.cancelled == [(await made.studio.runs.get(run.id)).remote_id]


async def test_a_maker_whose_calls_lie_is_asked(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    """Calls of every kind while nothing is done yet, in the wrong order, of jobs that are not ours, and forged."""
    async with world(sqlite_engine, tmp_path, grace_s=60) as made:
        run = await made.ask(BACKGROUND)
        remote_id = await made.taken(run)
        for kind in ("response.in_progress", "response.unheard_of", "batch.completed", "eval.run.failed"):
            await made.openai.tell(kind, remote_id)
            await made.openai.tell(kind, "resp_of_somebody_else")
        assert (await made.studio.runs.get(run.id)).status is Status.RUNNING
        made.openai.secret = "whsec_" + "QUFB" * 8
        made.openai.settle(remote_id, "completed")
        await made.openai.tell("response.completed", remote_id)
        assert made.openai.sent[-1] == 401
        made.openai.secret = SECRET
        await made.openai.tell("response.completed", remote_id, event_id="evt_true")
        check(await made.ended(run), "completed", "at last")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(500, {}, {})], "completed"),
        ([(429, {}, {"retry-after": "0.01"})], "completed"),
        ([(0, "", {})], "completed"),
        ([(200, "{", {})], "completed"),
        ([(200, "<html>", {"content-type": "text/html"})], "completed"),
        ([(200, [], {})], "completed"),
        ([(200, {"status": "unheard_of"}, {})], "completed"),
        ([(500, {}, {})] * 3, "temporary"),
        ([(404, {"error": {"message": "gone", "code": "not_found"}}, {})], "expired"),
        ([(401, {"error": {"message": "no", "code": "invalid_api_key"}}, {})], "auth_error"),
    ],
)
async def test_a_maker_that_fails_when_it_is_asked(
    sqlite_engine: AsyncEngine, tmp_path: Path, answers: list[Any], expected: str
) -> None:
    async with world(sqlite_engine, tmp_path, grace_s=60) as made:
        made.openai.automatic = "completed"
        made.openai.retrieve_answers.extend(answers)
        check(await made.ended(await made.ask(BACKGROUND)), expected, str(answers))
        assert len(made.openai.responses) == 1


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(500, {}, {})], "completed"),
        ([(0, "", {})] * 3, "temporary"),
        ([(200, "{", {})] * 3, "temporary"),
        ([(200, {"status": "queued"}, {})] * 3, "temporary"),
        ([(400, {"error": {"message": "no", "code": "moderation_blocked"}}, {})], "policy"),
        ([(429, {"error": {"message": "no", "code": "insufficient_quota"}}, {})], "quota"),
    ],
)
async def test_a_maker_that_fails_when_it_is_given_a_job(
    sqlite_engine: AsyncEngine, tmp_path: Path, answers: list[Any], expected: str
) -> None:
    async with world(sqlite_engine, tmp_path, grace_s=60) as made:
        made.openai.automatic = "completed"
        made.openai.create_answers.extend(answers)
        check(await made.ended(await made.ask(BACKGROUND)), expected, str(answers))


async def test_a_run_that_is_cancelled_stays_so_whatever_its_maker_calls(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with world(sqlite_engine, tmp_path, grace_s=60) as made:
        run = await made.ask(BACKGROUND)
        remote_id = await made.taken(run)
        await made.studio.runs.cancel(run.id, {})
        await made.studio.actor.abandon(run.id)
        assert made.openai.cancelled == [remote_id]
        cancelled = await made.studio.runs.get(run.id)
        made.openai.settle(remote_id, "completed")
        await made.openai.tell("response.completed", remote_id, times=3)
        assert isinstance(await made.studio.actor.advance(run.id), Done)
        assert await made.studio.runs.get(run.id) == cancelled
        assert made.openai.sent == [200, 200, 200]
        assert await rows(sqlite_engine, generated_images) == []
        assert len(await rows(sqlite_engine, webhook_deliveries)) == 1
