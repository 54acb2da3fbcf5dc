"""Takes the picture at the top of the README anew: `python -m tests.browser.readme_picture`."""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

import hatch_build
from tests.support.api import Api, canvas_api
from tests.support.chromium import ARGUMENTS, find_chromium
from tests.support.server import ServerProcess

PICTURE = hatch_build.ROOT / "docs" / "canvas.png"
SIZE = (1440, 900)
DEVELOPED = (
    ("lights", "Northern lights over a frozen lake", "1536x1024", (0, 0)),
    ("ridges", "Red ridges at dusk, mist in the valleys", "1024x1024", (35, 320)),
    ("sea", "A small boat on a quiet sea at dawn", "1024x1536", (425, 110)),
    ("city", "A city by the water at night", "1536x1024", (725, 0)),
)
DEVELOPING = ("dunes", "Golden dunes at sunset, long shadows", "1024x1024", (760, 320))


async def main() -> None:
    """Start a server, develop some pictures, and photograph one more on its way."""
    chromium = await asyncio.to_thread(find_chromium)
    os.environ["PLAYWRIGHT_NODEJS_PATH"] = str(hatch_build.node())
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(Path(folder) / "data", env={"DARKROOM_DEMO_DELAY_S": "8"})
        await server.start()
        try:
            async with async_playwright() as playwright:
                env: dict[str, str | float | bool] = {**os.environ, **chromium.env}
                browser = await playwright.chromium.launch(executable_path=chromium.executable, args=ARGUMENTS, env=env)
                await photograph(browser, server)
                await browser.close()
        finally:
            await server.terminate()


async def photograph(browser: Browser, server: ServerProcess) -> None:
    """Two people on one canvas."""
    nodes = [node(*one) for one in (*DEVELOPED, DEVELOPING)]
    async with canvas_api(server.url, nodes=nodes) as api:
        await api.client.patch(f"/api/workflows/{api.workflow_id}", json={"title": "Winter campaign"})
        jobs = [(await api.generate(name)).json()["jobId"] for name, *_ in DEVELOPED]
        for job in jobs:
            await api.ended(job)
        page = await person(browser, server, api)
        other = await person(browser, server, api)
        await page.wait_for_timeout(1500)
        await api.generate(DEVELOPING[0], by={"name": "Grace"})
        await other.mouse.move(700, 300)
        await other.mouse.move(860, 480, steps=5)
        await page.mouse.move(40, 450)
        await page.wait_for_timeout(5200)
        await asyncio.to_thread(PICTURE.parent.mkdir, exist_ok=True)
        await page.screenshot(path=PICTURE)


async def person(browser: Browser, server: ServerProcess, api: Api) -> Page:
    """A page of somebody's own, in the dark theme."""
    context = await browser.new_context(viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="dark")
    page = await context.new_page()
    await page.goto(f"{server.url}/w/{api.workflow_id}")
    return page


def node(name: str, prompt: str, size: str, at: tuple[int, int]) -> dict[str, Any]:
    """An image node in React Flow's shape."""
    position = {"x": at[0], "y": at[1]}
    return {"id": name, "type": "image", "position": position, "data": {"prompt": prompt, "params": {"size": size}}}


if __name__ == "__main__":
    asyncio.run(main())
