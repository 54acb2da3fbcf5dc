"""
Real pages in a real browser.

`new_page` opens a page per person: `page = await new_page(server.url)`. Errors and warnings in a page's console fail
the test; `new_page.allow(r"WebSocket connection")` expects some. The tests here run on one event loop, which the
browser belongs to. When a test fails, pictures of its pages are in `.cache/pictures`.
"""

import os
import re
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

import hatch_build
from tests.support.chromium import ARGUMENTS, Chromium, find_chromium
from tests.support.pages import Pages
from tests.support.server import ServerFactory

HERE = Path(__file__).parent
PICTURES = hatch_build.ROOT / ".cache" / "pictures"
FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of this folder on the loop of the session."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether the test itself failed, for its fixtures."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture(scope="session")
def chromium() -> Chromium:
    """The browser program; the first time on a machine it comes from npm and is unpacked."""
    return find_chromium()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium: Chromium) -> AsyncIterator[Browser]:
    """One browser for all tests of a test process."""
    # The Node.js that Playwright brings needs a library that minimal machines lack.
    os.environ["PLAYWRIGHT_NODEJS_PATH"] = str(hatch_build.node())
    env: dict[str, str | float | bool] = {**os.environ, **chromium.env}
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=chromium.executable,
            args=ARGUMENTS,
            env=env,
        )
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="session")
async def new_page(
    browser: Browser,
    start_server: ServerFactory,  # noqa: ARG001  set up before the pages, so that they are closed before it stops
    request: pytest.FixtureRequest,
) -> AsyncIterator[Pages]:
    """Opens pages, each as another person; `await new_page(url)`."""
    pages = Pages(browser)
    yield pages
    if request.node.stash.get(FAILED, False):
        await pages.take_pictures(PICTURES, re.sub(r"\W+", "-", request.node.name))
    await pages.close()
    assert not pages.faults, "\n".join(pages.faults)
