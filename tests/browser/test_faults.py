"""The page on bad days: a slow line, a cut one, a server that goes away, a database that does not answer."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from jobs.tables import runs
from tests.browser.test_canvas import PATIENCE_MS, RECONNECTING, node, shows
from tests.support.api import Api, canvas_api
from tests.support.pages import Pages
from tests.support.proxy import Proxy
from tests.support.server import ServerFactory, ServerProcess

ROOM = "bad-days"
NODE = {"id": "n1", "type": "image", "position": {"x": 0, "y": 0}, "data": {"prompt": "a fox"}}
OUTAGE_S = 8
"""Longer than the page waits before it takes a silent line for a dead one."""


@pytest.fixture
async def server(start_server: ServerFactory) -> ServerProcess:
    """A server whose database can be put out of order."""
    return await start_server.held(env={"DARKROOM_DEMO_DELAY_S": "1.5", "DEFAULT_PROVIDER": "demo"}).start()


@pytest_asyncio.fixture(loop_scope="session")
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    """A canvas with one node."""
    async with canvas_api(server.url, nodes=[NODE]) as api:
        yield api


def bar(page: Page) -> Any:
    return page.get_by_test_id("connection")


async def is_saved(page: Page) -> None:
    """Nothing that was done on the page could be lost any more, and it says so."""
    await expect(bar(page)).to_have_attribute("data-waiting", "0", timeout=PATIENCE_MS)
    await expect(bar(page)).to_have_text("Saved", timeout=PATIENCE_MS)


async def asks_before_leaving(page: Page) -> bool:
    return bool(await page.evaluate("() => !window.dispatchEvent(new Event('beforeunload', { cancelable: true }))"))


async def shown_at(page: Page) -> tuple[int, int]:
    """Where the page shows the node, in the canvas."""
    transform = await page.locator(".react-flow__node").first.evaluate("element => element.style.transform")
    x, y = re.findall(r"-?[\d.]+", transform)
    return round(float(x)), round(float(y))


async def stored_at(api: Api) -> tuple[int, int]:
    (kept,) = (await api.flow())["nodes"]
    return round(kept["position"]["x"]), round(kept["position"]["y"])


class Drag:
    """A node under the mouse of one person."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._at = (0.0, 0.0)

    async def begin(self) -> None:
        box = await node(self._page).bounding_box()
        assert box is not None
        self._at = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        await self._page.mouse.move(*self._at)
        await self._page.mouse.down()

    async def by(self, x: float, y: float) -> None:
        for _ in range(10):
            self._at = (self._at[0] + x / 10, self._at[1] + y / 10)
            await self._page.mouse.move(*self._at)

    async def end(self) -> None:
        await self._page.mouse.up()


async def test_over_a_slow_and_torn_line_nothing_is_lost_and_nothing_runs_twice(
    server: ServerProcess, api: Api, new_page: Pages
) -> None:
    new_page.allow(*RECONNECTING)
    async with Proxy(server.port).running() as far:
        far.delay_s, far.jitter_s = 0.15, 0.05
        a, b = [await new_page(f"{far.url}/w/{api.workflow_id}") for _ in range(2)]
        for page in (a, b):
            await expect(node(page)).to_be_visible()
        drag = Drag(b)
        await drag.begin()
        await node(a).get_by_role("button", name="Generate").click()
        await drag.by(120, 40)
        far.drop()
        await drag.by(-60, 40)
        await drag.end()
        for page in (a, b):
            await shows(page, "completed")
            await is_saved(page)
        place = await stored_at(api)
        assert place != (0, 0)
        assert place == await shown_at(a) == await shown_at(b)
        for page in (a, b):
            await node(page).hover()
        again = [node(page).get_by_role("button", name="Regenerate") for page in (a, b)]
        for button in again:
            await expect(button).to_be_enabled()
        await asyncio.gather(*(button.evaluate("button => button.click()") for button in again))
        for page in (a, b):
            await shows(page, "running")
        for page in (a, b):
            await shows(page, "completed")
        assert await server.count(runs) == 2
        far.refuse()
        await expect(bar(a)).to_have_attribute("data-look", "offline", timeout=PATIENCE_MS)
        await node(a).hover()
        await node(a).get_by_role("button", name="Regenerate").click()
        await expect(bar(a)).to_have_attribute("data-waiting", "1")
        far.accept()
        await a.get_by_role("button", name="Try now").click()
        for page in (a, b):
            await shows(page, "completed")
            await is_saved(page)
        assert await server.count(runs) == 3


async def test_a_server_that_goes_away_in_the_middle_of_a_drag_keeps_where_it_ended(
    server: ServerProcess, api: Api, new_page: Pages
) -> None:
    new_page.allow(*RECONNECTING)
    page = await new_page(f"{server.url}/w/{api.workflow_id}")
    await expect(node(page)).to_be_visible()
    drag = Drag(page)
    for way in (signal.SIGTERM, signal.SIGKILL):
        await drag.begin()
        await drag.by(60, 30)
        leaving = asyncio.create_task(server.restart(way))
        await drag.by(60, 30)
        await drag.end()
        await leaving
        await is_saved(page)
    await server.kill()
    await server.start()
    assert await stored_at(api) == await shown_at(page) != (0, 0)
    await is_saved(page)


async def test_while_the_database_fails_the_page_says_so_and_keeps_everything(
    server: ServerProcess, api: Api, new_page: Pages
) -> None:
    new_page.allow(*RECONNECTING)
    page = await new_page(f"{server.url}/w/{api.workflow_id}")
    prompt = node(page).get_by_role("textbox", name="Prompt")
    await prompt.click()
    await is_saved(page)
    assert not await asks_before_leaving(page)
    broken = server.data / "fail-commit"
    broken.touch()
    started = asyncio.get_running_loop().time()
    await page.keyboard.press("End")
    await prompt.press_sequentially(" in the snow")
    await expect(bar(page)).to_have_text(re.compile("^Not saved . trying again$"))
    await expect(page.get_by_test_id("banner")).to_contain_text("12\u00a0edits are kept here")
    assert await asks_before_leaving(page)
    left_s = started + OUTAGE_S - asyncio.get_running_loop().time()
    with pytest.raises(AssertionError):
        await expect(bar(page)).not_to_have_attribute("data-look", "unsaved", timeout=left_s * 1000)
    broken.unlink()
    await is_saved(page)
    await expect(page.get_by_test_id("banner")).to_have_text("Back. Everything is saved.")
    assert not await asks_before_leaving(page)
    await server.kill()
    await server.start()
    assert (await api.flow())["nodes"][0]["data"]["prompt"] == "a fox in the snow"


async def test_a_cut_cable_is_noticed_though_nobody_says_so(server: ServerProcess, api: Api, new_page: Pages) -> None:
    new_page.allow(*RECONNECTING)
    async with Proxy(server.port).running() as far:
        page = await new_page(f"{far.url}/w/{api.workflow_id}")
        prompt = node(page).get_by_role("textbox", name="Prompt")
        await prompt.click()
        await is_saved(page)
        before = far.accepted
        far.cut()
        await page.keyboard.press("End")
        await prompt.press_sequentially("!")
        await expect(bar(page)).to_have_attribute("data-look", "unsaved")
        await is_saved(page)
        assert far.accepted > before
        assert (await api.flow())["nodes"][0]["data"]["prompt"] == "a fox!"
