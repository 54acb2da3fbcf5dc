"""The page where tokens are used: links let people in, and no address keeps a token."""

import re

import httpx2
import pytest
from playwright.async_api import expect

from tests.browser.test_canvas import first_picture, loaded, node, shows
from tests.server.tokens import SECRET, bearer, token
from tests.support.pages import Pages
from tests.support.server import ServerFactory, ServerProcess


@pytest.fixture
async def guarded(start_server: ServerFactory) -> ServerProcess:
    """A server with a secret."""
    return await start_server(env={"DARKROOM_DEMO_DELAY_S": "0", "DARKROOM_SECRET": SECRET})


async def test_a_link_opens_the_canvas_and_its_token_leaves_the_address(
    guarded: ServerProcess, new_page: Pages
) -> None:
    new_page.allow(r"[Pp]ermission denied")
    editor = await new_page(f"{guarded.url}/?token={token(name='Ada')}")
    await expect(editor).to_have_url(re.compile(r"/w/[\w.-]+$"))
    await first_picture(editor, "a fox in the snow")
    await shows(editor, "completed")
    picture = await loaded(editor)
    workflow_id = editor.url.rsplit("/", 1)[1]
    async with httpx2.AsyncClient(base_url=guarded.url, headers=bearer(token())) as client:
        shared = (await client.post(f"/api/workflows/{workflow_id}/share", json={"role": "viewer"})).json()
    viewer = await new_page(shared["url"])
    await shows(viewer, "completed")
    await expect(viewer).to_have_url(editor.url)
    assert await loaded(viewer) == picture
    await viewer.reload()
    await shows(viewer, "completed")


async def test_without_a_token_the_canvas_stays_closed_and_says_so(guarded: ServerProcess, new_page: Pages) -> None:
    new_page.allow(r"Failed to load resource", r"WebSocket")
    stranger = await new_page(f"{guarded.url}/w/any")
    await expect(stranger.get_by_role("heading", name="You need a link to open this canvas")).to_be_visible()
    await expect(node(stranger)).to_have_count(0)
