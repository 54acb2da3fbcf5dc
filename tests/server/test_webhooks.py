import base64
import gc
import gzip
import hashlib
import json
import logging
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import jwt
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from jobs.settlement import SILENT
from jobs.tables import generated_images, run_costs, run_events, runs, webhook_deliveries
from providers.jwks import Freshness, KeyRing
from providers.webhooks import SCHEMES, AnyOf, Ed25519, Hmac, Jwt, Standard, Token
from server.parts import Parts
from server.settings import read_settings
from server.webhooks import reachable
from tests.emulators.keys import KeyServer, ed25519_entry, rsa_entry
from tests.jobs.builders import png, rows
from tests.server.api import Api, Reply, node
from tests.server.calling import SECRET, CallingMaker, event, job_of, signed
from tests.server.conftest import running

OTHER_SECRET = "whsec_" + base64.b64encode(b"another secret of 24 by!").decode()
APP_URL = "https://darkroom.example"
FAL = cast("Ed25519", SCHEMES["fal"])


@pytest.fixture
def maker() -> CallingMaker:
    return CallingMaker()


@pytest.fixture
async def api(maker: CallingMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """The application with a maker that calls back, on an address it can call."""
    monkeypatch.setenv("CALLER_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("REPLICATE_WEBHOOK_SECRET", f"{OTHER_SECRET}, {SECRET}")
    settings = read_settings(data=tmp_path / "data", demo_delay_s=0, app_url=APP_URL)
    async with running(settings, tmp_path / "page", Parts(providers=(maker,))) as api:
        yield api


async def started(api: Api) -> str:
    """The id of a job that the maker has taken."""
    workflow_id = await api.workflow(node("n1", prompt="a fox"))
    job_id = str((await api.run(workflow_id, "n1", {"provider": "caller"}))["jobId"])
    with api.services.signals.watch(job_id) as watch:
        while (await api.services.runs.get(job_id)).remote_id is None:
            assert await watch.wait(10)
    return job_id


async def call(api: Api, body: bytes, headers: dict[str, str], where: str = "/webhooks/caller") -> Reply:
    return await api.client.post(where, content=body, headers={**headers, "cookie": "private=1"})


async def kinds(api: Api, job_id: str) -> list[str]:
    return [each.kind for each in await api.services.runs.events(job_id)]


async def state(api: Api) -> list[Any]:
    """Everything that a call could change."""
    tables = (runs, run_events, webhook_deliveries, run_costs, generated_images)
    return [[tuple(row) for row in await rows(api.services.engine, table)] for table in tables]


async def test_a_call_finishes_its_run_at_once(api: Api, maker: CallingMaker) -> None:
    job_id = await started(api)
    maker.done[job_of(job_id)] = png()
    body = event("job.completed", job_id)
    assert (await call(api, body, signed(body, x_extra="yes"))).status_code == 200
    assert (await api.finished(job_id))["status"] == "completed"
    assert maker.polled == [job_of(job_id)]
    assert await kinds(api, job_id) == ["requested", "started", "accepted", "heard", "answered", "completed"]
    assert len(await rows(api.services.engine, run_costs)) == 1
    (row,) = await rows(api.services.engine, webhook_deliveries)
    assert (row.run_id, row.settled_at is None) == (job_id, False)
    assert row.payload == {
        "state": "job.completed",
        "body": json.loads(body),
        "headers": {"webhook-id": "msg_1", "webhook-timestamp": row.payload["headers"]["webhook-timestamp"]}
        | {"x-extra": "yes"},
    }


async def test_repetitions_late_calls_and_unknown_jobs_are_thanked_for(api: Api, maker: CallingMaker) -> None:
    job_id = await started(api)
    maker.done[job_of(job_id)] = png()
    for number, about in enumerate([job_id, job_id, "of nobody"]):
        body = event("job.completed", about)
        for _ in range(2):
            assert (await call(api, body, signed(body, f"msg_{number}"))).json() == {"received": True}
    await api.finished(job_id)
    before = await state(api)
    for number, kind in enumerate(["job.completed", "job.processing", "job.failed", "job.unheard-of"], 10):
        body = event(kind, job_id)
        assert (await call(api, body, signed(body, f"msg_{number}"))).status_code == 200
    after = await state(api)
    assert (after[:2], after[3:]) == (before[:2], before[3:])
    assert len(after[2]) == len(before[2]) + 4
    assert len(after[4]) == 1


async def test_calls_are_counted_by_what_became_of_them(api: Api) -> None:
    for body in (b"{}", b'{"id": "x"}'):
        assert (await call(api, body, {})).status_code == 401
    assert (await call(api, b"{}", {}, "/webhooks/nobody")).status_code == 404
    text = (await api.get("/metrics")).text
    assert 'darkroom_webhooks_total{outcome="refused",provider="caller"} 2.0' in text
    assert 'provider="nobody"' not in text


async def test_a_promise_that_is_not_kept_is_found_out(
    maker: CallingMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLER_WEBHOOK_SECRET", SECRET)
    settings = read_settings(data=tmp_path / "data", app_url=APP_URL, webhook_grace_s=0)
    async with running(settings, tmp_path / "page", Parts(providers=(maker,))) as api:
        job_id = await started(api)
        maker.done[job_of(job_id)] = png()
        assert (await api.finished(job_id))["status"] == "completed"
        incidents = [each.payload for each in await api.services.runs.events(job_id) if each.kind == "incident"]
        assert [each["code"] for each in incidents] == [SILENT]


Forgery = Callable[[str, int], tuple[bytes, dict[str, str], str]]


def _forged(change: Callable[[bytes, dict[str, str]], tuple[bytes, dict[str, str]]]) -> Forgery:
    def forge(job_id: str, number: int) -> tuple[bytes, dict[str, str], str]:
        body = event("job.completed", job_id, number=number)
        return *change(body, signed(body, f"msg_{number}")), "/webhooks/caller"

    return forge


def _headers(**other: str) -> Forgery:
    return _forged(lambda body, given: (body, given | {k.replace("_", "-"): v for k, v in other.items()}))


def _without(name: str) -> Forgery:
    return _forged(lambda body, given: (body, {k: v for k, v in given.items() if k != name}))


def _at(shift: int) -> Forgery:
    return _forged(lambda body, _: (body, signed(body, at=time.time() + shift)))


FORGERIES: dict[str, tuple[Forgery, int]] = {
    "not signed": (_forged(lambda body, _: (body, {})), 401),
    "wrong secret": (_forged(lambda body, _: (body, signed(body, secret=OTHER_SECRET))), 401),
    "without id": (_without("webhook-id"), 401),
    "without time": (_without("webhook-timestamp"), 401),
    "without signature": (_without("webhook-signature"), 401),
    "another id": (_headers(webhook_id="msg_other"), 401),
    "another time": (_headers(webhook_timestamp=str(int(time.time()) + 7)), 401),
    "too old": (_at(-310), 401),
    "too new": (_at(310), 401),
    "a time with a fraction": (
        _forged(lambda body, given: (body, given | {"webhook-timestamp": given["webhook-timestamp"] + ".0"})),
        401,
    ),
    "a time in words": (_headers(webhook_timestamp="now"), 401),
    "one byte changed": (_forged(lambda body, given: (body.replace(b"completed", b"complete\x00"), given)), 401),
    "written anew": (_forged(lambda body, given: (json.dumps(json.loads(body), indent=1).encode(), given)), 401),
    "empty body": (_forged(lambda _, given: (b"", given)), 401),
    "garbage for a signature": (_headers(webhook_signature="v1,%%%% v1 ,,, v1a,x"), 401),
    "a long list": (_headers(webhook_signature=" ".join(["v1,AAAA"] * 500)), 401),
    "bytes that are no text": (_forged(lambda _, given: (b"\xff\xfe\x00", given)), 401),
    "compressed": (_forged(lambda body, given: (gzip.compress(body), given | {"content-encoding": "gzip"})), 401),
    "a bomb": (_forged(lambda _, given: (gzip.compress(bytes(1_000_000)), given | {"content-encoding": "gzip"})), 401),
    "nested deeply": (_forged(lambda _, given: (b"[" * 100_000, given)), 401),
    "too long": (_forged(lambda body, given: (body + b" " * 300_000, given)), 413),
    "with the token of nobody": (
        lambda job_id, n: (event("job.completed", job_id), {}, f"/webhooks/caller?run={job_id}&token={n}"),
        401,
    ),
    "for a maker without scheme": (
        lambda job_id, _: (event("job.completed", job_id), {"x-signature": "0" * 64}, "/webhooks/midjourney"),
        404,
    ),
    "for nobody": (lambda job_id, _: (event("job.completed", job_id), {}, "/webhooks/nobody"), 404),
    "to a strange address": (lambda job_id, _: (event("job.completed", job_id), {}, "/webhooks/%00%ff"), 404),
}


def forgeries(job_id: str, count: int) -> Iterator[tuple[str, bytes, dict[str, str], str, int]]:
    for number in range(count):
        name, (forge, status) = list(FORGERIES.items())[number % len(FORGERIES)]
        yield name, *forge(job_id, number), status


async def test_500_forged_calls_change_nothing_raise_nothing_and_hold_no_memory(
    api: Api, maker: CallingMaker, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = await started(api)
    caplog.set_level(logging.WARNING)

    async def attack(count: int) -> None:
        for name, body, headers, where, status in forgeries(job_id, count):
            reply = await call(api, body, headers, where)
            assert reply.status_code == status, (name, reply.text)
            assert reply.headers["content-type"] == "application/problem+json"
            if status == 401:
                assert reply.json()["detail"] == "The signature is missing or not valid."

    await attack(len(FORGERIES))
    before = await state(api)
    gc.collect()
    tracemalloc.start()
    held = tracemalloc.get_traced_memory()[0]
    await attack(500)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - held
    tracemalloc.stop()
    assert await state(api) == before
    assert grown < 500_000
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
    maker.done[job_of(job_id)] = png()
    body = event("job.completed", job_id)
    assert (await call(api, body, signed(body))).status_code == 200
    assert (await api.finished(job_id))["status"] == "completed"


async def test_a_signature_of_one_maker_is_worth_nothing_at_another(api: Api) -> None:
    body = event("job.completed", "x")
    assert (await call(api, body, signed(body, secret=OTHER_SECRET), "/webhooks/replicate")).status_code == 200
    assert (await call(api, body, signed(body, secret=OTHER_SECRET), "/webhooks/caller")).status_code == 401


async def test_the_old_secret_counts_while_it_is_being_changed(api: Api) -> None:
    for number, secret in enumerate((SECRET, OTHER_SECRET)):
        body = event("job.completed", "x")
        assert (
            await call(api, body, signed(body, f"m{number}", secret=secret), "/webhooks/replicate")
        ).status_code == 200


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"not json", "", 400),
        (b'"text"', "", 400),
        (b"[]", "", 400),
        (b"", "", 400),
        (b"[" * 100_000, "", 400),
        (b'{"a":' * 50_000, "", 400),
        (b'{"type": NaN, "data": {"id": Infinity}}', "", 200),
        (b'{"type": {"a": 1}, "data": "text"}', "", 200),
        (b'{"type": "job.completed", "data": {"id": ["x"]}}', "", 200),
        (b'{"type": "job.completed", "data": {"id": "\\u0000\\ud800"}}', "", 200),
        (b'{"type": "' + b"x" * 5000 + b'", "data": {"id": "' + b"y" * 5000 + b'"}}', "", 200),
        (b'{"type": "job.completed", "data": {"id": "x"}}', "gzip", 415),
    ],
)
async def test_a_genuine_call_may_hold_anything(api: Api, body: bytes, encoding: str, status: int) -> None:
    reply = await call(api, body, signed(body) | ({"content-encoding": encoding} if encoding else {}))
    assert reply.status_code == status, reply.text
    assert len(await rows(api.services.engine, webhook_deliveries)) == (status == 200)


async def test_a_genuine_call_that_is_no_text_is_refused(api: Api) -> None:
    import hmac  # noqa: PLC0415 - the libraries cannot sign it

    body, moment = b"\xff\xfe", str(int(time.time()))
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.new(key, f"m.{moment}.".encode() + body, hashlib.sha256).digest()).decode()
    headers = {"webhook-id": "m", "webhook-timestamp": moment, "webhook-signature": f"v1,{signature}"}
    assert (await call(api, body, headers)).status_code == 400


async def test_while_the_database_is_away_makers_are_told_to_come_again(api: Api) -> None:
    body = event("job.completed", "x")
    async with api.services.engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE webhook_deliveries RENAME TO gone"))
    reply = await call(api, body, signed(body))
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
    async with api.services.engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE gone RENAME TO webhook_deliveries"))
    assert (await call(api, body, signed(body))).status_code == 200


async def test_a_call_with_a_picture_in_it_leaves_none_in_the_database(api: Api, maker: CallingMaker) -> None:
    job_id = await started(api)
    maker.done[job_of(job_id)] = png()
    picture = base64.b64encode(png(300, 300) * 20).decode()
    body = event("job.completed", job_id, b64_json=picture, url=f"data:image/png;base64,{picture}")
    assert (await call(api, body, signed(body))).status_code == 200
    assert (await api.finished(job_id))["status"] == "completed"
    (row,) = await rows(api.services.engine, webhook_deliveries)
    assert picture[:40] not in json.dumps(row.payload)


HMAC_KEY = "plain text"


def _hmac_hex(body: bytes, *, at: float | None = None) -> str:
    import hmac  # noqa: PLC0415 - the independent one is the standard library

    signed_text = body if at is None else f"{int(at)}.".encode() + body
    return hmac.new(HMAC_KEY.encode(), signed_text, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("form", ["bare", "prefixed", "timed"])
async def test_a_maker_that_signs_with_hmac(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLER_WEBHOOK_SECRET", HMAC_KEY)
    maker = CallingMaker(webhook=Hmac())
    settings = read_settings(data=tmp_path / "data", app_url=APP_URL)
    async with running(settings, tmp_path / "page", Parts(providers=(maker,))) as api:
        job_id = await started(api)
        maker.done[job_of(job_id)] = png()
        body = event("job.completed", job_id)
        now = time.time()
        headers = {
            "bare": {"x-signature": _hmac_hex(body)},
            "prefixed": {"x-hub-signature-256": f"sha256={_hmac_hex(body)}"},
            "timed": {"x-signature": f"t={int(now)},v1={_hmac_hex(body, at=now)}"},
        }[form]
        assert (await call(api, body + b" ", headers)).status_code == 401
        for _ in range(2):
            assert (await call(api, body, headers)).status_code == 200
        assert (await api.finished(job_id))["status"] == "completed"
        assert len(await rows(api.services.engine, webhook_deliveries)) == 1


async def test_one_secret_for_every_maker_takes_either_way_of_signing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", f"{SECRET},{HMAC_KEY}")
    async with running(read_settings(data=tmp_path / "data"), tmp_path / "page") as api:
        body = event("job.completed", "x")
        assert (await call(api, body, signed(body), "/webhooks/openai")).status_code == 200
        assert (await call(api, body, signed(body), "/webhooks/anybody")).status_code == 200
        hexed = {"x-signature": _hmac_hex(body)}
        assert (await call(api, body, hexed, "/webhooks/anybody")).status_code == 200
        assert (await call(api, body, hexed, "/webhooks/openai")).status_code == 401
        assert (await call(api, body, {}, "/webhooks/fal")).status_code == 404
        ids = {(row.provider, row.remote_id) for row in await rows(api.services.engine, webhook_deliveries)}
        assert ids == {("openai", "job-x"), ("anybody", "job-x")}


async def test_without_a_secret_the_address_is_not_there(tmp_path: Path) -> None:
    async with running(read_settings(data=tmp_path / "data"), tmp_path / "page") as api:
        for name in ("openai", "demo", "fal", "midjourney", "x" * 65, "Nobody", "..%2Fapi"):
            assert (await call(api, b"{}", {}, f"/webhooks/{name}")).status_code == 404, name


def _asked(maker: CallingMaker) -> str:
    """The path and query that the maker was told to call."""
    parts = urlsplit(maker.requests[-1].webhook_url or "")
    return f"{parts.path}?{parts.query}"


async def test_a_maker_that_signs_nothing_needs_the_token_and_is_asked(tmp_path: Path) -> None:
    maker = CallingMaker(webhook=Token())
    settings = read_settings(data=tmp_path / "data", app_url=APP_URL)
    async with running(settings, tmp_path / "page", Parts(providers=(maker,))) as api:
        job_id = await started(api)
        body = event("job.completed", job_id, url="https://evil.example/a.png")
        where = _asked(maker)
        for wrong in ("/webhooks/caller", where[:-1], where + "x", where.replace(job_id, "0" * 32)):
            assert (await call(api, body, {}, wrong)).status_code == 401
        maker.done[job_of(job_id)] = png()
        for _ in range(2):
            assert (await call(api, body, {}, where)).status_code == 200
        assert (await api.finished(job_id))["status"] == "completed"
        assert maker.polled == [job_of(job_id)]


def fal_headers(key: ed25519.Ed25519PrivateKey, body: bytes, at: float | None = None) -> dict[str, str]:
    moment = str(int(time.time() if at is None else at))
    message = "\n".join(("req-1", "user-1", moment, hashlib.sha256(body).hexdigest()))
    return {
        "x-fal-webhook-request-id": "req-1",
        "x-fal-webhook-user-id": "user-1",
        "x-fal-webhook-timestamp": moment,
        "x-fal-webhook-signature": key.sign(message.encode()).hex(),
    }


async def test_a_maker_that_signs_with_published_keys(tmp_path: Path) -> None:
    key, new, stranger = (ed25519.Ed25519PrivateKey.generate() for _ in range(3))
    async with KeyServer(entries=[ed25519_entry("k1", key)]).serving() as published:
        maker = CallingMaker(webhook=replace(FAL, keys_url=published.url, user_id="user-1"))
        settings = read_settings(data=tmp_path / "data", app_url=APP_URL)
        async with running(settings, tmp_path / "page", Parts(providers=(maker,))) as api:
            job_id = await started(api)
            body, where = event("job.completed", job_id), _asked(maker)
            published.status = 500
            assert (await call(api, body, fal_headers(key, body), where)).status_code == 503
            published.status = 200
            impatient = KeyRing(published.url, Freshness(pause_s=0, retry_s=0))
            api.services.webhooks._rings[published.url] = impatient
            for bad in (
                fal_headers(stranger, body),
                fal_headers(key, b"{}"),
                fal_headers(key, body, time.time() - 310),
            ):
                assert (await call(api, body, bad, where)).status_code == 401
            other_user = fal_headers(key, body) | {"x-fal-webhook-user-id": "user-2"}
            assert (await call(api, body, other_user, where)).status_code == 401
            assert (await call(api, body, fal_headers(key, body))).status_code == 401
            published.entries[:] = [ed25519_entry("k2", new)]
            maker.done[job_of(job_id)] = png()
            assert (await call(api, body, fal_headers(new, body), where)).status_code == 200
            assert (await api.finished(job_id))["status"] == "completed"


async def test_a_maker_that_sends_a_jwt_is_believed_for_what_that_says(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    async with KeyServer(entries=[rsa_entry("k1", key)]).serving() as published:
        maker = CallingMaker(webhook=AnyOf((Standard(), Jwt(published.url))))
        settings = read_settings(data=tmp_path / "data", app_url=APP_URL)
        async with running(settings, tmp_path / "page", Parts(providers=(maker,))) as api:
            job_id = await started(api)
            where = _asked(maker)
            claims = json.loads(event("job.completed", job_id)) | {"exp": time.time() + 60, "iat": time.time()}
            lie = event("job.failed", job_id)

            def sent(changed: dict[str, Any], **header: str) -> dict[str, str]:
                text = jwt.encode({**claims, **changed}, key, "RS256", {"kid": "k1", **header})
                return {"webhook-signature": text}

            for aud in ("https://elsewhere.example/webhooks/caller", f"{APP_URL}.evil.example"):
                assert (await call(api, lie, sent({"aud": aud}), where)).status_code == 401
            good = sent({"aud": f"{APP_URL}/webhooks/caller"})
            assert (await call(api, lie, sent({"aud": APP_URL}, kid="k2"), where)).status_code == 401
            assert (await call(api, lie, good)).status_code == 401
            maker.done[job_of(job_id)] = png()
            assert (await call(api, lie, good, where)).status_code == 200
            assert (await api.finished(job_id))["status"] == "completed"


@pytest.mark.parametrize(
    ("url", "allow", "expected"),
    [
        ("https://darkroom.example", (), True),
        ("https://93.184.216.34", (), True),
        ("http://127.0.0.1:8000", (), False),
        ("http://127.0.0.1:8000", ("127.0.0.0/8",), True),
        ("http://localhost:8000", (), False),
        ("http://localhost:8000", ("localhost",), True),
        ("http://192.168.1.5", (), False),
        ("http://[::1]:8000", (), False),
        ("http://nas.local", (), False),
        ("http://darkroom", (), False),
        ("http://darkroom", ("darkroom",), True),
    ],
)
def test_a_maker_is_only_told_an_address_that_it_can_reach(url: str, allow: tuple[str, ...], *, expected: bool) -> None:
    assert reachable(url, allow) is expected


async def test_a_maker_gets_no_address_where_it_could_not_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLER_WEBHOOK_SECRET", SECRET)
    maker = CallingMaker()
    async with running(read_settings(data=tmp_path / "data"), tmp_path / "page", Parts(providers=(maker,))) as api:
        job_id = await started(api)
        assert maker.requests[0].webhook_url is None
        maker.done[job_of(job_id)] = png()
        assert (await api.finished(job_id))["status"] == "completed"
        assert "incident" not in await kinds(api, job_id)
