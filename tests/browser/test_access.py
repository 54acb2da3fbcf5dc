"""The page where tokens are used: links let people in, and no address keeps a token."""

import re
import time
from collections.abc import Iterator

import httpx2
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from server.access import LEEWAY_S
from tests.browser.test_canvas import first_picture, loaded, node, shows
from tests.server.tokens import SECRET, bearer, token
from tests.support.pages import Pages
from tests.support.server import ServerFactory, ServerProcess


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a secret, which all tests of this module share."""
    factory = ServerFactory(tmp_path_factory.mktemp("server"))
    yield factory.now(env={"DARKROOM_DEMO_DELAY_S": "0", "DARKROOM_SECRET": SECRET})
    factory.stop_all()


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


@pytest_asyncio.fixture(loop_scope="session")
async def workflow_id(guarded: ServerProcess) -> str:
    """A workflow with a node that has a prompt."""
    nodes = [{"id": "n1", "type": "image", "position": {"x": 0, "y": 0}, "data": {"prompt": "a fox"}}]
    async with httpx2.AsyncClient(base_url=guarded.url, headers=bearer(token())) as client:
        return str((await client.post("/api/workflows", json={"nodes": nodes})).json()["id"])


async def paste(page: Page, text: str) -> None:
    await page.get_by_label("Link or token").fill(text)
    await page.get_by_role("button", name="Open", exact=True).click()


async def test_who_may_only_look_is_offered_nothing_else(
    guarded: ServerProcess, workflow_id: str, new_page: Pages
) -> None:
    page = await new_page(f"{guarded.url}/w/{workflow_id}#token={token('viewer')}")
    await expect(page.get_by_test_id("connection")).to_have_text("View only")
    await node(page).hover()
    await expect(page.get_by_role("button", name=re.compile("Generate|Run|New|Undo"))).to_have_count(0)
    await expect(page.get_by_role("textbox", name="Prompt")).not_to_be_editable()
    await expect(page.get_by_label("Canvas name")).not_to_be_editable()
    before = await node(page).bounding_box()
    assert before is not None
    await page.mouse.move(before["x"] + 60, before["y"] + 60)
    await page.mouse.down()
    await page.mouse.move(before["x"] + 160, before["y"] + 90, steps=5)
    await page.mouse.up()
    for key in ("p", "Control+a", "Delete", "Control+Enter", "Control+d"):
        await page.keyboard.press(key)
    await expect(page.get_by_test_id("image-node")).to_have_count(1)
    await expect(page.get_by_test_id("connection")).to_have_attribute("data-waiting", "0")


async def test_who_may_only_look_sees_earlier_pictures_and_the_queue(
    guarded: ServerProcess, workflow_id: str, new_page: Pages
) -> None:
    async with httpx2.AsyncClient(base_url=guarded.url, headers=bearer(token(name="Ada"))) as client:
        asked = await client.post(f"/api/workflows/{workflow_id}/nodes/n1/runs", json={})
        assert asked.status_code == 201
    page = await new_page(f"{guarded.url}/w/{workflow_id}#token={token('viewer')}")
    await shows(page, "completed")
    await node(page).hover()
    await node(page).get_by_role("button", name="Earlier pictures").click()
    entry = page.get_by_test_id("entry")
    await expect(entry).to_contain_text(re.compile("a fox.*Ada.*On the canvas", re.DOTALL))
    await expect(page.get_by_test_id("history").get_by_role("button")).to_have_count(2)
    await page.keyboard.press("Escape")
    await page.keyboard.press("q")
    await expect(page.get_by_test_id("queue-panel")).to_contain_text("Nothing is being made here now")
    await expect(page.get_by_role("button", name=re.compile("Pause|Resume|Cancel"))).to_have_count(0)


async def test_without_a_token_the_canvas_stays_closed_until_a_link_is_pasted(
    guarded: ServerProcess, workflow_id: str, new_page: Pages
) -> None:
    new_page.allow(r"status of 401")
    page = await new_page(f"{guarded.url}/w/{workflow_id}")
    stop = page.get_by_test_id("stop")
    await expect(stop.get_by_role("heading")).to_have_text("You need a link to open this canvas")
    await expect(node(page)).to_have_count(0)
    await paste(page, guarded.url)
    await expect(stop.get_by_role("alert")).to_contain_text("Copy the whole link")
    await paste(page, f"{guarded.url}/w/{workflow_id}#token={token(workflows=['other'])}")
    await expect(stop.get_by_role("heading")).to_have_text("Your link is for another canvas")
    await paste(page, f"{guarded.url}/w/{workflow_id}#token={token()}")
    await expect(stop).to_have_count(0)
    await expect(page.get_by_test_id("connection")).to_have_text("Saved")
    await expect(node(page)).to_be_visible()


async def test_an_edit_made_as_the_token_ends_is_kept_for_the_next_one(
    guarded: ServerProcess, workflow_id: str, new_page: Pages
) -> None:
    ends = time.time() - LEEWAY_S + 4
    page = await new_page(f"{guarded.url}/w/{workflow_id}#token={token(exp=ends)}")
    prompt = node(page).get_by_role("textbox", name="Prompt")
    await prompt.click()
    await expect(page.get_by_test_id("connection")).to_have_text("Saved")
    stop = page.get_by_test_id("stop")
    await expect(stop.get_by_role("heading")).to_have_text("Your link has expired")
    # What a hand was still at: the dialog keeps new edits away.
    await prompt.evaluate(
        "field => { field.value = 'a fox!'; field.dispatchEvent(new Event('input', { bubbles: true })) }"
    )
    await expect(stop).to_contain_text("1\u00a0edit is not saved yet")
    await paste(page, token())
    await expect(page.get_by_test_id("connection")).to_have_attribute("data-waiting", "0")
    async with httpx2.AsyncClient(base_url=guarded.url, headers=bearer(token())) as client:
        kept = (await client.get(f"/api/workflows/{workflow_id}")).json()["nodes"][0]["data"]
    assert kept["prompt"] == "a fox!"


async def test_a_canvas_that_nobody_began_offers_a_new_one(guarded: ServerProcess, new_page: Pages) -> None:
    page = await new_page(f"{guarded.url}/w/nobody-began-this#token={token('viewer')}")
    await expect(page.get_by_test_id("stop").get_by_role("heading")).to_have_text("There is no canvas here")
    await expect(page.get_by_role("button", name="Start a new canvas")).to_be_visible()


async def test_the_front_door_takes_a_link_or_a_token(
    guarded: ServerProcess, workflow_id: str, new_page: Pages
) -> None:
    new_page.allow(r"status of 40[13]")
    page = await new_page(f"{guarded.url}/")
    await expect(page.get_by_test_id("door").get_by_role("heading")).to_have_text("Open a canvas")
    await paste(page, token("viewer"))
    await expect(page.get_by_role("alert")).to_contain_text("does not let you start a canvas")
    await paste(page, token("viewer", [workflow_id]))
    await expect(page).to_have_url(f"{guarded.url}/w/{workflow_id}")
    await expect(page.get_by_test_id("connection")).to_have_text("View only")
    await page.goto(f"{guarded.url}/")
    await paste(page, token())
    await expect(page).to_have_url(re.compile(r"/w/[\w.-]+$"))
    await first_picture(page, "a fox in the snow")
    await shows(page, "completed")
