import gzip
from pathlib import Path

import pytest

from tests.server.api import Api


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A built page, where the application looks for it."""
    folder = tmp_path / "page"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>Darkroom</title>")
    (folder / "assets" / "app-1a2b.js").write_text("export {}")
    (folder / "assets" / "app-1a2b.js.gz").write_bytes(gzip.compress(b"export {}"))
    (folder / "favicon.svg").write_text("<svg/>")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


async def workflows(api: Api) -> int:
    return len((await api.get("/api/workflows")).json()["workflows"])


async def test_a_visit_makes_a_workflow_and_goes_there(api: Api) -> None:
    reply = await api.get("/")
    assert reply.status_code == 303
    workflow_id = reply.headers["location"].removeprefix("/w/")
    assert reply.headers["cache-control"] == "no-store"
    assert (await api.flow(workflow_id))["nodes"] == []


async def test_a_look_makes_no_workflow(api: Api) -> None:
    assert (await api.client.head("/")).status_code == 200
    assert (await api.get("/", sec_purpose="prefetch;prerender")).status_code == 503
    assert await workflows(api) == 0


@pytest.mark.usefixtures("page")
async def test_the_page_is_the_same_for_every_workflow_and_makes_none(api: Api) -> None:
    reply = await api.get("/w/any.id")
    assert (reply.status_code, reply.headers["cache-control"]) == (200, "no-cache")
    assert "<title>Darkroom" in reply.text
    again = await api.get("/w/other", if_none_match=reply.headers["etag"])
    assert again.status_code == 304
    assert (await api.get("/w/%20")).status_code == 404
    assert await workflows(api) == 0


@pytest.mark.usefixtures("page")
async def test_parts_of_the_page_are_kept_for_ever_and_sent_packed(api: Api) -> None:
    plain = await api.get("/assets/app-1a2b.js", accept_encoding="identity")
    assert plain.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in plain.headers["cache-control"]
    packed = await api.get("/assets/app-1a2b.js", accept_encoding="gzip, br")
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.text == plain.text == "export {}"
    assert packed.headers["vary"] == "accept-encoding"


@pytest.mark.usefixtures("page")
async def test_files_beside_the_page_are_served_and_no_others(api: Api) -> None:
    assert (await api.get("/favicon.svg")).headers["content-type"].startswith("image/svg+xml")
    for path in (
        "/index.html",
        "/none.js",
        "/assets/..%2f..%2fsecret.txt",
        "/assets/%2fetc%2fpasswd",
        "/..%2fsecret.txt",
    ):
        assert (await api.get(path)).status_code == 404


async def test_a_page_that_is_not_built_says_how_to_build_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.routes.page.PLACES", ())
    api.app.state.page = None
    reply = await api.get("/w/x")
    assert reply.status_code == 503
    assert "python3 dev.py run" in reply.text
