"""Seeing and steering runs from the page: the line, pauses, what was made before."""

import re
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from tests.support.api import Api, canvas_api
from tests.support.pages import Pages
from tests.support.server import ServerFactory, ServerProcess


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose maker takes one call at a time, and can be held at it."""
    factory = ServerFactory(tmp_path_factory.mktemp("server"))
    yield factory.held(env={"DEFAULT_PROVIDER": "held", "DARKROOM_LIMITS": "held=1"}).start_now()
    factory.stop_all()


@pytest_asyncio.fixture(loop_scope="session")
async def canvas(narrow: ServerProcess) -> AsyncIterator[Api]:
    """Three pictures that nobody has asked for yet."""
    nodes = [
        {"id": name, "type": "image", "position": {"x": 370 * index, "y": 0}, "data": {"prompt": f"picture {name}"}}
        for index, name in enumerate(("one", "two", "three"))
    ]
    async with canvas_api(narrow.url, nodes=nodes) as api:
        yield api


@pytest.fixture
def let_go(narrow: ServerProcess) -> Iterator[Callable[[], None]]:
    """The maker does not answer before this is called."""
    gate = narrow.data / "hold-generating"
    gate.touch()
    yield gate.unlink
    gate.unlink(missing_ok=True)


def picture(page: Page, name: str) -> Locator:
    return page.locator(f"[data-node-id='{name}']")


async def generate(page: Page, name: str) -> None:
    await picture(page, name).get_by_role("button", name="Generate").click()


async def shows(page: Page, name: str, status: str) -> None:
    await expect(picture(page, name)).to_have_attribute("data-status", status)


async def shown(page: Page, name: str) -> str:
    """The address of the one picture that a node shows."""
    image = picture(page, name).locator("img")
    await expect(image).to_have_count(1)
    return str(await image.get_attribute("src"))


async def test_the_line_is_seen_and_steered(
    narrow: ServerProcess, canvas: Api, let_go: Callable[[], None], new_page: Pages
) -> None:
    page = await new_page(f"{narrow.url}/w/{canvas.workflow_id}")
    await generate(page, "one")
    await shows(page, "one", "running")
    await generate(page, "two")
    await expect(picture(page, "two")).to_contain_text("Next in line")
    await generate(page, "three")
    await expect(picture(page, "three")).to_contain_text("2nd in line")
    await expect(page.get_by_test_id("queue")).to_contain_text("3")
    await page.keyboard.press("q")
    panel = page.get_by_test_id("queue-panel")
    await expect(panel).to_contain_text("1 running, 2 waiting")
    await panel.get_by_role("button", name="Make it next: picture three").click()
    await expect(picture(page, "three")).to_contain_text("Next in line")
    rows = panel.get_by_test_id("queue-row")
    await expect(rows.nth(1)).to_contain_text("picture three")
    await rows.nth(1).get_by_role("button", name="Cancel").click()
    await shows(page, "three", "cancelled")
    await panel.get_by_role("button", name="Cancel waiting").click()
    await shows(page, "two", "cancelled")
    await expect(rows).to_have_count(1)
    let_go()
    await shows(page, "one", "completed")
    await expect(panel).to_contain_text("Nothing is being made here now")


async def test_a_paused_canvas_says_so_to_everybody_and_goes_on(
    narrow: ServerProcess, canvas: Api, new_page: Pages
) -> None:
    a = await new_page(f"{narrow.url}/w/{canvas.workflow_id}")
    b = await new_page(a.url)
    await a.get_by_test_id("queue").click()
    await a.get_by_test_id("queue-panel").get_by_role("button", name="Pause").click()
    await expect(a.get_by_test_id("paused")).to_contain_text("This canvas is paused")
    await a.keyboard.press("Escape")
    await generate(b, "one")
    await expect(picture(b, "one")).to_contain_text(re.compile(r"Paused\s*by \w"))
    await expect(b.get_by_test_id("queue")).to_contain_text("Paused")
    await b.get_by_test_id("queue").click()
    await b.get_by_test_id("paused").get_by_role("button", name="Resume").click()
    for page in (a, b):
        await shows(page, "one", "completed")
    await expect(a.get_by_test_id("queue")).not_to_contain_text("Paused")


async def test_an_earlier_picture_is_put_back_by_the_keyboard(
    narrow: ServerProcess, canvas: Api, new_page: Pages
) -> None:
    page = await new_page(f"{narrow.url}/w/{canvas.workflow_id}")
    await generate(page, "one")
    await shows(page, "one", "completed")
    first = await shown(page, "one")
    await picture(page, "one").get_by_role("button", name="Regenerate").click()
    await expect(picture(page, "one").locator(f"img[src='{first}']")).to_have_count(0)
    other = await new_page(page.url)
    await page.locator(".react-flow__node[data-id='one']").focus()
    await page.keyboard.press("Enter")
    await page.keyboard.press("e")
    history = page.get_by_test_id("history")
    entries = history.get_by_test_id("entry")
    await expect(entries).to_have_count(2)
    await expect(entries.nth(0)).to_contain_text("On the canvas")
    await entries.nth(1).get_by_role("button", name="Use this picture").focus()
    await page.keyboard.press("Enter")
    await expect(entries.nth(0)).to_contain_text("put an earlier picture back")
    await expect(entries.nth(2)).to_contain_text("On the canvas")
    for one in (page, other):
        assert await shown(one, "one") == first
    await page.keyboard.press("Escape")
    await expect(history).to_have_count(0)
