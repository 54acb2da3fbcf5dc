"""Browser pages that tests open, one per user, watched for errors and warnings."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Error, Page

DEFAULT_TIMEOUT_MS = 10_000
VIEWPORT = {"width": 1280, "height": 800}


class Pages:
    """
    Opens pages, each in a context of its own: another person at another computer.

    What a page writes to its console as an error or a warning, and each exception nobody caught, is collected in
    `faults`; the test fails for it at the end. A test that breaks something on purpose names what it expects with
    `allow`.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._allowed: list[re.Pattern[str]] = []
        self._faults: list[str] = []

    async def __call__(self, url: str | None = None, **context: Any) -> Page:
        """Open a page, at `url` when there is one; further arguments go to Playwright's `Browser.new_context`."""
        made = await self._browser.new_context(**{"viewport": VIEWPORT, "reduced_motion": "reduce", **context})
        self._contexts.append(made)
        made.set_default_timeout(DEFAULT_TIMEOUT_MS)
        page = await made.new_page()
        number = len(self._contexts)
        page.on("console", lambda message: self._note_console(number, message))
        page.on("pageerror", lambda error: self._note_error(number, error))
        if url is not None:
            await page.goto(url)
        return page

    def allow(self, *patterns: str) -> None:
        """Expect console messages that match these regular expressions."""
        self._allowed.extend(re.compile(pattern) for pattern in patterns)

    @property
    def faults(self) -> Sequence[str]:
        """What went wrong in the pages so far and was not allowed."""
        return [fault for fault in self._faults if not any(allowed.search(fault) for allowed in self._allowed)]

    async def take_pictures(self, folder: Path, name: str) -> list[Path]:
        """Photograph every open page, for a test that failed."""
        pictures = []
        pages = [page for context in self._contexts for page in context.pages]
        for number, page in enumerate(pages, start=1):
            picture = folder / f"{name}-{number}.png"
            await page.screenshot(path=picture)
            pictures.append(picture)
        return pictures

    async def close(self) -> None:
        """Close every page."""
        for context in self._contexts:
            await context.close()

    def _note_console(self, number: int, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._faults.append(f"page {number}, console {message.type}: {message.text}")

    def _note_error(self, number: int, error: Error) -> None:
        self._faults.append(f"page {number}, uncaught: {error}")
