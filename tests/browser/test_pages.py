"""The browser of the tests itself: that it starts, shows text, and that its pages tell on themselves."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from tests.support.pages import Pages

BODY = b"<!doctype html><title>One</title><h1>Hello</h1><button onclick='this.textContent=\"Pressed\"'>Press</button>"


class Handler(http.server.BaseHTTPRequestHandler):
    """One page at every path but the icon's."""

    def do_GET(self) -> None:
        self.send_response(http.HTTPStatus.NO_CONTENT if self.path == "/favicon.ico" else http.HTTPStatus.OK)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        if self.path != "/favicon.ico":
            self.wfile.write(BODY)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


async def test_each_page_is_another_person(new_page: Pages, site: str) -> None:
    first, second = await new_page(site), await new_page(site)
    await first.evaluate("localStorage.setItem('name', 'Ada')")
    await first.get_by_role("button", name="Press").click()
    assert await first.get_by_role("button").inner_text() == "Pressed"
    assert await second.get_by_role("button").inner_text() == "Press"
    assert await second.evaluate("localStorage.getItem('name')") is None


async def test_text_is_visible_without_fonts_of_the_machine(new_page: Pages, site: str) -> None:
    page = await new_page(site)
    box = await page.get_by_role("heading").evaluate(
        "heading => { const range = document.createRange(); range.selectNodeContents(heading);"
        " return range.getBoundingClientRect().width; }",
    )
    assert box > 50


async def test_errors_and_warnings_of_a_page_are_faults(new_page: Pages, site: str) -> None:
    page = await new_page(site)
    await page.evaluate("console.warn('careful'); console.error('broken'); console.log('fine')")
    async with page.expect_event("pageerror"):
        await page.evaluate("setTimeout(() => { throw new Error('lost'); })")
    assert [fault.split(": ", 1)[1] for fault in new_page.faults] == ["careful", "broken", "lost"]
    new_page.allow("careful", "broken", "lost")
    assert not new_page.faults
