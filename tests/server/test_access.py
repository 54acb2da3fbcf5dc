import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.tables import workflows
from jobs.worker import Pace
from server.access import LEEWAY_S, MAX_TOKEN_CHARS, Access, Caller, Grant, Role
from server.app import OPERATIONS
from server.errors import Unauthenticated
from server.operations import Operation
from server.parts import Parts
from server.routes.canvas_events import stream as canvas_stream
from server.routes.events import Lease
from server.routes.events import stream as job_stream
from server.settings import read_settings
from tests.server.api import Api, Reply, node
from tests.server.conftest import running
from tests.server.tokens import OTHER_SECRET, SECRET, bearer, token


def unsigned() -> str:
    """What a library makes of `alg: none`."""
    parts = [{"alg": "none", "typ": "JWT"}, {"sub": "u1", "role": "admin", "workflows": "*", "exp": time.time() + 600}]
    return ".".join(jwt.utils.base64url_encode(json.dumps(part).encode()).decode() for part in parts) + "."


NONE = unsigned()
AT_ONCE = Parts(pace=Pace(grace_s=0.05))
"""A stop does not wait for makers that never answer."""
CLAIMS = ["sub", "name", "role", "workflows", "exp", "nbf", "iat", "aud", "jti"]
LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.sampled_from(["*", "editor"])
JSON = st.recursive(LEAVES, st.lists, max_leaves=5)
GUARDED = [operation for operation in OPERATIONS if not operation.public]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """The application with a secret; requests carry no token of themselves."""
    settings = read_settings(data=tmp_path / "data", demo_delay_s=0, secret=SECRET)
    async with running(settings, tmp_path / "page") as api:
        yield api


async def call(api: Api, method: str, path: str, body: object = None, said: str | None = None) -> Reply:
    headers = {} if said is None else bearer(said)
    return await api.client.request(method, path, json=body, headers=headers)


async def made(api: Api, *names: str) -> str:
    """A new workflow with these nodes."""
    body = {"nodes": [node(name, prompt="a fox") for name in names]}
    return str((await call(api, "POST", "/api/workflows", body, token())).json()["id"])


async def rows(api: Api) -> list[Any]:
    async with api.services.engine.connect() as connection:
        return list((await connection.execute(workflows.select())).all())


def path_of(operation: Operation, workflow_id: str = "w1") -> str:
    path = operation.path.replace("{workflow_id}", workflow_id)
    for name in ("node", "edge", "job", "run", "batch"):
        path = path.replace(f"{{{name}_id}}", f"{name}1")
    return path


def test_a_token_says_who_may_do_what_where() -> None:
    said = token("viewer", ["w1"], name="Ada", exp=2_000_000_000)
    caller = Access(SECRET).read(said)
    assert caller == Caller(Role.VIEWER, frozenset({"w1"}), "u1", "Ada", 2_000_000_000)
    assert (caller.may(Role.VIEWER), caller.may(Role.EDITOR)) == (True, False)
    assert (caller.reaches("w1"), caller.reaches("w2")) == (True, False)


@pytest.mark.parametrize("role", Role)
def test_roles_contain_each_other(role: Role) -> None:
    assert [known for known in Role if Caller(role).may(known)] == list(Role)[: role.rank + 1]


def test_what_is_issued_is_read() -> None:
    access = Access(SECRET)
    issued = access.issue(Grant(Role.EDITOR, frozenset({"w1", "w2"}), "Ada", "ada"), 60)
    caller = access.read(issued.token)
    assert caller.token_id == issued.id
    said_by_it = replace(caller, token_id="", issued_at=None)
    assert said_by_it == Caller(Role.EDITOR, frozenset({"w1", "w2"}), "ada", "Ada", issued.expires_at.timestamp())
    assert not caller.expired


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "missing"),
        ("x", "invalid"),
        ("a.b.c", "invalid"),
        ("\udcff\u00fc.b.c", "invalid"),
        (NONE, "invalid"),
        (NONE + "x", "invalid"),
        (token(secret=OTHER_SECRET), "invalid"),
        (token(alg="HS512"), "invalid"),
        (token(exp=time.time() - LEEWAY_S - 1), "expired"),
        (token(exp=None), "invalid"),
        (token(exp="soon"), "invalid"),
        (token(exp=[1]), "invalid"),
        (token(exp=True), "expired"),
        (token(exp=float("inf")), "invalid"),
        (token(nbf=time.time() + 86_400), "invalid"),
        (token(iat=time.time() + 86_400), "invalid"),
        (token(aud="somebody else"), "invalid"),
        (token("owner"), "invalid"),
        (token(role=None), "invalid"),
        (token(sub=None), "invalid"),
        (token(sub=""), "invalid"),
        (token(sub="x" * 129), "invalid"),
        (token(name=7), "invalid"),
        (token(workflows=None), "invalid"),
        (token(workflows="w1"), "invalid"),
        (token(workflows=[7]), "invalid"),
        (token(workflows=["w1", "w1"]), "invalid"),
        (token(workflows={"w1": True}), "invalid"),
        (token(workflows=["w" * 200] * 100), "invalid"),
        (token(name="x" * MAX_TOKEN_CHARS), "invalid"),
        ("x" * 1_000_000, "invalid"),
    ],
)
def test_a_bad_token_is_refused_and_told_why(said: str, why: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        Access(SECRET).read(said)
    assert refused.value.why == why


def test_clocks_may_differ_a_little() -> None:
    assert Access(SECRET).read(token(exp=time.time() - LEEWAY_S / 2)).role is Role.EDITOR


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_garbage_is_never_taken_and_never_breaks(said: str) -> None:
    with pytest.raises(Unauthenticated):
        Access(SECRET).read(said)


@given(st.dictionaries(st.sampled_from(CLAIMS), JSON))
def test_claims_of_any_shape_are_read_or_refused(claims: dict[str, Any]) -> None:
    said = jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, algorithm="HS256")
    with contextlib.suppress(Unauthenticated):
        Access(SECRET).read(said)


@given(st.integers(0), st.integers(0, 255))
def test_a_token_with_a_changed_byte_is_not_the_token(at: int, byte: int) -> None:
    good = token()
    bad = bytearray(good.encode())
    bad[at % len(bad)] = byte
    if bad.decode("latin-1") == good or at % len(bad) == len(bad) - 1:
        return  # The last character of base64 holds bits that say nothing.
    with pytest.raises(Unauthenticated):
        Access(SECRET).read(bad.decode("latin-1"))


@pytest.mark.parametrize("operation", GUARDED, ids=lambda operation: f"{operation.method} {operation.path}")
async def test_no_route_does_anything_without_a_good_token(api: Api, operation: Operation) -> None:
    for said in (None, "x", token(exp=time.time() - 60), NONE):
        reply = await call(api, operation.method, path_of(operation), {}, said)
        assert reply.status_code == 401
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.headers["www-authenticate"].startswith('Bearer realm="darkroom"')
    assert await rows(api) == []


@pytest.mark.parametrize("operation", GUARDED, ids=lambda operation: f"{operation.method} {operation.path}")
async def test_a_lesser_role_is_refused_on_every_route(api: Api, operation: Operation) -> None:
    if operation.least_role is Role.VIEWER:
        return
    lesser = list(Role)[operation.least_role.rank - 1]
    reply = await call(api, operation.method, path_of(operation), {}, token(lesser.value))
    assert (reply.status_code, reply.json()["title"]) == (403, "Forbidden")
    assert await rows(api) == []


async def test_a_token_for_some_workflows_reaches_no_other(api: Api) -> None:
    mine, other = await made(api, "n1"), await made(api, "n1")
    job = (await call(api, "POST", f"/api/workflows/{other}/nodes/n1/runs", {}, token())).json()["jobId"]
    said = token("admin", [mine])
    for operation in GUARDED:
        if "{workflow_id}" in operation.path:
            assert (await call(api, operation.method, path_of(operation, other), {}, said)).status_code == 403
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry")):
        assert (await call(api, method, f"/api/images/jobs/{job}{path}", {}, said)).status_code == 403
    one = {"workflowId": other, "nodeId": "n1"}
    assert (await call(api, "POST", "/api/images/generate", one, said)).status_code == 403
    batch = {"requests": [{**one, "workflowId": mine}, one]}
    reply = await call(api, "POST", "/api/images/generate", batch, said)
    assert (reply.status_code, reply.json()["detail"][:11]) == (403, "requests.1:")
    history = (await call(api, "GET", f"/api/workflows/{mine}/nodes/n1/runs", None, said)).json()
    assert history == {"runs": []}
    for method, path in (("GET", "/"), ("POST", "/api/workflows"), ("GET", "/metrics")):
        assert (await call(api, method, path, {}, said)).status_code == 403
    listed = (await call(api, "GET", "/api/workflows", None, said)).json()["workflows"]
    assert [workflow["id"] for workflow in listed] == [mine]
    assert len((await call(api, "GET", "/api/workflows", None, token("viewer"))).json()["workflows"]) == 2


async def test_a_token_is_taken_from_the_header_and_from_the_query(api: Api) -> None:
    said = token("viewer")
    assert (await api.get("/api/workflows", authorization=f"bearer {said}")).status_code == 200
    assert (await api.get(f"/api/workflows?limit=1&token={said}")).status_code == 200
    assert (await api.get(f"/api/workflows?token={said}", authorization="Bearer x")).status_code == 401
    assert (await api.get("/api/workflows", authorization=f"Basic {said}")).status_code == 401


async def test_a_browser_without_a_good_token_is_shown_a_place_for_one(api: Api) -> None:
    page = api.app.state.page
    page.mkdir(parents=True, exist_ok=True)
    (page / "index.html").write_text("<!doctype html><title>Darkroom</title>")
    for said, status in (("", 401), (token(exp=1), 401), (token(workflows=["w1"]), 403), (token("viewer"), 403)):
        reply = await api.get(f"/?token={said}", accept="text/html,*/*")
        assert (reply.status_code, reply.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert "<title>Darkroom" in reply.text
        assert reply.headers["cache-control"] == "no-store"
        assert (await api.get(f"/?token={said}")).headers["content-type"] == "application/problem+json"
    assert await rows(api) == []
    assert (await api.get(f"/?token={token()}", accept="text/html")).status_code == 303


async def test_what_everybody_may_see_needs_no_token(api: Api) -> None:
    for path in ("/health", "/readyz", "/openapi.json"):
        assert (await api.get(path)).status_code == 200
    assert (await api.get("/images/none")).status_code == 404
    assert (await api.get("/w/any")).status_code != 401


async def test_the_token_says_who_asked_whatever_the_body_says(api: Api) -> None:
    workflow_id = await made(api, "n1")
    path = f"/api/workflows/{workflow_id}/nodes/n1/runs"
    reply = await call(api, "POST", path, {"by": {"id": "boss", "name": "Boss"}}, token(name="Ada"))
    assert reply.json()["requestedBy"] == {"id": "u1", "name": "Ada"}


async def test_a_visit_with_a_token_takes_it_along_out_of_sight_of_servers(api: Api) -> None:
    said = token()
    reply = await api.get(f"/?token={said}")
    assert reply.status_code == 303
    assert reply.headers["location"].endswith(f"#token={said}")


async def test_an_admin_makes_tokens(api: Api) -> None:
    body = {"role": "viewer", "workflows": ["w1"], "name": "Ada", "expiresInS": 60}
    reply = await call(api, "POST", "/api/tokens", body, token("admin"))
    assert (reply.status_code, reply.headers["cache-control"]) == (201, "no-store")
    caller = Access(SECRET).read(reply.json()["token"])
    assert (caller.role, caller.workflows, caller.name) == (Role.VIEWER, frozenset({"w1"}), "Ada")
    assert abs((caller.expires_at or 0) - time.time() - 60) < 10


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "owner", "workflows": "*"}, "role"),
        ({"role": "viewer"}, "workflows"),
        ({"role": "viewer", "workflows": []}, "workflows.list[constrained-str]"),
        ({"role": "viewer", "workflows": "*", "expiresInS": 30 * 24 * 3600 + 1}, "expiresInS"),
        ({"role": "viewer", "workflows": "*", "expiresInS": 0}, "expiresInS"),
        ({"role": "viewer", "workflows": [f"{number:0>128}" for number in range(100)]}, "workflows"),
    ],
)
async def test_a_token_that_cannot_be_is_refused(api: Api, body: dict[str, Any], field: str) -> None:
    reply = await call(api, "POST", "/api/tokens", body, token("admin"))
    assert reply.status_code == 422
    assert any(error["field"].startswith(field.partition(".")[0]) for error in reply.json()["errors"])


async def test_an_admin_of_some_workflows_gives_away_no_others(api: Api) -> None:
    for wanted, status in (("*", 403), (["w1", "w2"], 403), (["w1"], 201)):
        body = {"role": "admin", "workflows": wanted}
        assert (await call(api, "POST", "/api/tokens", body, token("admin", ["w1"]))).status_code == status


async def test_a_share_link_opens_one_workflow(api: Api) -> None:
    workflow_id = await made(api)
    reply = await call(api, "POST", f"/api/workflows/{workflow_id}/share", {"role": "viewer"}, token())
    assert reply.status_code == 201
    shared = reply.json()
    assert shared["url"] == f"http://127.0.0.1:8000/w/{workflow_id}#token={shared['token']}"
    caller = Access(SECRET).read(shared["token"])
    assert (caller.role, caller.workflows, caller.name) == (Role.VIEWER, frozenset({workflow_id}), "Guest")
    assert (await call(api, "GET", f"/api/workflows/{workflow_id}", None, shared["token"])).status_code == 200


async def test_an_editor_shares_no_more_than_they_have(api: Api) -> None:
    workflow_id = await made(api)
    path = f"/api/workflows/{workflow_id}/share"
    assert (await call(api, "POST", path, {"role": "admin"}, token())).status_code == 422
    ends = time.time() + 120
    shared = (await call(api, "POST", path, {"role": "editor"}, token(exp=ends))).json()
    assert (Access(SECRET).read(shared["token"]).expires_at or 0) <= ends
    assert (await call(api, "POST", "/api/workflows/none/share", {"role": "viewer"}, token())).status_code == 404


async def test_without_a_secret_there_are_no_tokens(tmp_path: Path) -> None:
    async with running(read_settings(data=tmp_path / "data", demo_delay_s=0), tmp_path / "page") as api:
        workflow_id = await api.workflow()
        reply = await api.post(f"/api/workflows/{workflow_id}/share", {"role": "viewer"})
        assert (reply.status_code, "DARKROOM_SECRET" in reply.json()["detail"]) == (409, True)
        assert (await api.post("/api/tokens", {"role": "viewer", "workflows": "*"})).status_code == 403


async def test_an_event_stream_ends_with_its_token(tmp_path: Path) -> None:
    settings = read_settings(data=tmp_path / "data", demo_delay_s=600, secret=SECRET)
    async with running(settings, tmp_path / "page", AT_ONCE) as api, asyncio.timeout(20):
        workflow_id = await made(api, "n1")
        reply = await call(api, "POST", f"/api/workflows/{workflow_id}/nodes/n1/runs", {}, token())
        streams = (f"/api/images/jobs/{reply.json()['jobId']}/events", f"/api/workflows/{workflow_id}/events")
        said = token("viewer", exp=time.time() - LEEWAY_S + 1)
        headers = {**bearer(said), "accept": "text/event-stream"}
        for reply in await asyncio.gather(*(api.client.get(stream, headers=headers) for stream in streams)):
            assert (reply.status_code, "completed" in reply.text) == (200, False)


async def to_the_end(lines: AsyncIterator[str]) -> str:
    return "".join([line async for line in lines])


async def test_an_event_stream_ends_when_its_token_is_called_back(tmp_path: Path) -> None:
    settings = read_settings(data=tmp_path / "data", demo_delay_s=600, secret=SECRET)
    async with running(settings, tmp_path / "page", AT_ONCE) as api, asyncio.timeout(20):
        workflow_id = await made(api, "n1")
        path = f"/api/workflows/{workflow_id}/nodes/n1/runs"
        job_id = (await call(api, "POST", path, {}, token())).json()["jobId"]
        access, services = api.app.state.access, api.services
        lease = Lease(services, access, access.read(token("viewer", jti="gone")))
        for lines in (
            job_stream(services, await services.runs.get(job_id), 99, lease),
            canvas_stream(services, workflow_id, services.timeline.now(), lease),
        ):
            assert (await anext(lines)).startswith("retry: ")
            rest = asyncio.create_task(to_the_end(lines))
            await call(api, "POST", "/api/tokens/revoke", {"jti": "gone"}, token("admin"))
            assert "completed" not in await rest


@pytest.mark.parametrize(
    ("origin", "status"), [("http://other.example", 403), ("http://192.168.1.5:8000", 201), (None, 201)]
)
async def test_with_tokens_a_page_of_any_own_name_may_change_things(api: Api, origin: str | None, status: int) -> None:
    headers = {**bearer(token()), "host": "192.168.1.5:8000"} | ({} if origin is None else {"origin": origin})
    assert (await api.client.post("/api/workflows", json={}, headers=headers)).status_code == status


async def test_pages_of_allowed_sites_may_send_tokens(tmp_path: Path) -> None:
    site = "https://app.example"
    settings = read_settings(data=tmp_path / "data", secret=SECRET, cors_origins=site)
    async with running(settings, tmp_path / "page") as api:
        asked = {"origin": site, "access-control-request-method": "GET"}
        asked["access-control-request-headers"] = "authorization"
        reply = await api.client.options("/api/workflows", headers=asked)
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, site)
        assert "authorization" in reply.headers["access-control-allow-headers"].lower()
        refused = await api.client.get("/api/workflows", headers={"origin": site})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, site)
