"""The canvas as people use it: two pages, a mouse and a keyboard, on the real server."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa
from playwright.async_api import Locator, Page, expect

from jobs.tables import runs
from tests.support.api import Api, canvas_api
from tests.support.pages import Pages
from tests.support.server import ServerFactory, ServerProcess

PATIENCE_MS = 20_000
RECONNECTING = (r"WebSocket connection", r"net::ERR_CONNECTION_REFUSED", r"Failed to load resource")


@pytest.fixture
async def slow(start_server: ServerFactory) -> ServerProcess:
    """A server whose demo takes long enough to be watched."""
    return await start_server(env={"DARKROOM_DEMO_DELAY_S": "2"})


@asynccontextmanager
async def paused(api: Api) -> AsyncIterator[None]:
    """Inside, a new run of the canvas waits in the queue."""
    scope = {"workflowId": api.workflow_id}
    assert (await api.client.post("/api/queue/pause", json=scope)).status_code == 200
    try:
        yield
    finally:
        assert (await api.client.post("/api/queue/resume", json=scope)).status_code == 200


def node(page: Page) -> Locator:
    return page.get_by_test_id("image-node").first


async def shows(page: Page, status: str) -> None:
    await expect(node(page)).to_have_attribute("data-status", status, timeout=PATIENCE_MS)


async def loaded(page: Page) -> str:
    """The address of the node's picture once its pixels are there and the one it replaces has gone."""
    image = node(page).locator("img")
    await expect(image).to_have_count(1, timeout=PATIENCE_MS)
    source: str = await image.evaluate(
        "async image => { await image.decode(); if (!image.naturalWidth) throw Error('empty'); return image.src }"
    )
    return source


async def first_picture(page: Page, prompt: str) -> None:
    field = page.get_by_label("Describe a picture")
    await field.fill(prompt)
    await field.press("Enter")


async def watch_statuses(page: Page) -> None:
    """Note every status the node shows from now on, in `window.statuses`."""
    await node(page).evaluate(
        """element => {
          window.statuses = [element.dataset.status]
          new MutationObserver(() => {
            if (window.statuses.at(-1) !== element.dataset.status) window.statuses.push(element.dataset.status)
          }).observe(element, { attributes: true, attributeFilter: ['data-status'] })
        }"""
    )


async def test_a_picture_develops_while_another_person_drags_its_node(slow: ServerProcess, new_page: Pages) -> None:
    a = await new_page(f"{slow.url}/")
    await expect(a).to_have_url(re.compile(r"/w/[\w.-]+$"))
    workflow_id = a.url.rsplit("/", 1)[1]
    async with canvas_api(slow.url, workflow_id) as api:
        await api.add_node(id="n1", type="image", data={})
        b = await new_page(a.url)
        for page in (a, b):
            await expect(node(page)).to_be_visible()
            await watch_statuses(page)
        prompt = node(a).get_by_role("textbox", name="Prompt")
        await prompt.click()
        await prompt.press_sequentially("a fox in the snow")
        await expect(node(b).get_by_role("textbox", name="Prompt")).to_have_value("a fox in the snow")
        box = await node(b).bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        await b.mouse.move(x, y)
        await b.mouse.down()
        async with paused(api):
            await node(a).get_by_role("button", name="Generate").click()
            for step in range(1, 21):
                await b.mouse.move(x + step * 8, y + step * 4)
            for page in (a, b):
                await shows(page, "pending")
        await shows(b, "running")
        await b.mouse.up()
        for page in (a, b):
            await shows(page, "completed")
            seen = await page.evaluate("window.statuses")
            assert [status for status in seen if status != "idle"] == ["pending", "running", "completed"]
        assert await loaded(a) == await loaded(b)
        (kept,) = (await api.flow())["nodes"]
        assert kept["data"]["prompt"] == "a fox in the snow"
        assert kept["data"]["status"] == "completed"
        assert kept["position"]["x"] > 50
        assert kept["position"]["y"] > 20
        await b.get_by_role("button", name=re.compile("Open picture")).first.click()
        dialog = b.get_by_role("dialog", name="Picture")
        await expect(dialog).to_be_visible()
        # The small picture stands in until the whole one is there.
        await b.wait_for_function(
            "() => [...document.querySelectorAll('dialog img')].some(image => image.naturalWidth >= 1024)"
        )
        await b.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()


async def test_both_press_regenerate_at_the_same_moment(start_server: ServerFactory, new_page: Pages) -> None:
    held = await start_server.held(env={"DEFAULT_PROVIDER": "held"}).start()
    a = await new_page(f"{held.url}/")
    await first_picture(a, "a lighthouse at night")
    await shows(a, "completed")
    first = await loaded(a)
    b = await new_page(a.url)
    await shows(b, "completed")
    for page in (a, b):
        await node(page).hover()
    buttons = [node(page).get_by_role("button", name="Regenerate") for page in (a, b)]
    for button in buttons:
        await expect(button).to_be_enabled()
    # The second click meets the first one's run at work, however busy the machine is.
    gate = held.data / "hold-generating"
    gate.touch()
    await asyncio.gather(*(button.evaluate("button => button.click()") for button in buttons))
    for page in (a, b):
        await shows(page, "running")
    gate.unlink()
    for page in (a, b):
        await shows(page, "completed")
        await expect(page.get_by_test_id("toast")).to_have_count(0)
    assert await held.count(runs) == 2
    assert await loaded(a) == await loaded(b) != first


async def test_the_first_picture_needs_a_sentence_and_enter(server: ServerProcess, new_page: Pages) -> None:
    page = await new_page(f"{server.url}/")
    await expect(page.get_by_test_id("demo-badge")).to_be_visible()
    await first_picture(page, "misty mountains at dawn")
    await shows(page, "completed")
    await loaded(page)


async def test_cancel_and_retry_from_the_page(start_server: ServerFactory, new_page: Pages) -> None:
    server = await start_server(env={"DARKROOM_DEMO_DELAY_S": "60"})
    page = await new_page(f"{server.url}/")
    await first_picture(page, "a very slow picture")
    await shows(page, "running")
    await node(page).get_by_role("button", name="Cancel").click()
    await shows(page, "cancelled")
    assert [row.status for row in await server.rows(sa.select(runs.c.status))] == ["cancelled"]


async def test_a_refused_prompt_says_why_and_can_be_changed(server: ServerProcess, new_page: Pages) -> None:
    page = await new_page(f"{server.url}/")
    await first_picture(page, "something forbidden")
    await shows(page, "failed")
    await expect(node(page)).to_contain_text(re.compile("refused", re.IGNORECASE))
    prompt = node(page).get_by_role("textbox", name="Prompt")
    await prompt.fill("something lovely")
    await node(page).get_by_role("button", name=re.compile("Retry|Generate|Try again")).first.click()
    await shows(page, "completed")


async def test_a_killed_server_costs_no_reload(slow: ServerProcess, new_page: Pages) -> None:
    new_page.allow(*RECONNECTING)
    page = await new_page(f"{slow.url}/")
    await first_picture(page, "a harbour in fog")
    await shows(page, "running")
    await slow.kill()
    await expect(page.get_by_test_id("connection")).not_to_have_attribute("data-link", "live", timeout=PATIENCE_MS)
    await slow.start()
    await shows(page, "completed")
    await loaded(page)
    assert await slow.count(runs) == 1


async def test_a_click_while_offline_runs_when_the_server_is_back(server: ServerProcess, new_page: Pages) -> None:
    new_page.allow(*RECONNECTING)
    page = await new_page(f"{server.url}/")
    workflow_id = page.url.rsplit("/", 1)[1]
    async with canvas_api(server.url, workflow_id) as api:
        await api.add_node(id="n1", type="image", data={"prompt": "an owl"})
    await expect(node(page).get_by_role("textbox", name="Prompt")).to_have_value("an owl")
    await server.kill()
    await expect(page.get_by_test_id("connection")).not_to_have_attribute("data-link", "live", timeout=PATIENCE_MS)
    await node(page).get_by_role("button", name="Generate").click()
    await server.start()
    await shows(page, "completed")


async def test_undo_takes_back_ones_own_drag_and_leaves_the_picture(server: ServerProcess, new_page: Pages) -> None:
    page = await new_page(f"{server.url}/")
    await first_picture(page, "a red boat")
    await shows(page, "completed")
    workflow_id = page.url.rsplit("/", 1)[1]
    async with canvas_api(server.url, workflow_id) as api:
        before = (await api.flow())["nodes"][0]["position"]
        box = await node(page).bounding_box()
        assert box is not None
        await page.mouse.move(box["x"] + 60, box["y"] + 60)
        await page.mouse.down()
        for step in range(1, 11):
            await page.mouse.move(box["x"] + 60 + step * 10, box["y"] + 60)
        await page.mouse.up()

        async def position_is_before() -> bool:
            return bool((await api.flow())["nodes"][0]["position"] == before)

        async with asyncio.timeout(10):
            while await position_is_before():
                pass
        await page.keyboard.press("Control+z")
        async with asyncio.timeout(10):
            while not await position_is_before():
                pass
        assert (await api.flow())["nodes"][0]["data"]["status"] == "completed"
    await shows(page, "completed")


async def test_people_see_each_other(server: ServerProcess, new_page: Pages) -> None:
    a = await new_page(f"{server.url}/")
    b = await new_page(a.url)
    for page in (a, b):
        await expect(page.get_by_role("list", name="People here").get_by_role("listitem")).to_have_count(2)
    await b.mouse.move(150, 300)
    await b.mouse.move(170, 320)
    await expect(a.locator(".cursor").first).to_be_visible()
