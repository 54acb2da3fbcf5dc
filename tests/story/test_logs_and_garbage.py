"""A whole journey at debug level, with the garbage collector at every turn: logs keep secrets, no task is lost."""

import asyncio
import base64
import contextlib
import gc
import io
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jobs import signing
from providers.base import Cost, Finished, ImageResult
from providers.errors import ErrorClass, ProviderError
from server.logs import set_up_logging
from server.parts import Parts
from server.settings import Settings, read_settings
from tests.emulators.receiver import Receiver
from tests.jobs.builders import FakeProvider, finished, png
from tests.providers.builders import PictureHost
from tests.server.api import Api, node
from tests.server.conftest import running
from tests.server.tokens import SECRET, bearer, token

PROMPT = "a walrus on a unicycle, which is nobody's business"
PICTURE = png(120, 90)
SIGNING = signing.make_secret()
KEY = "sk-this-is-a-key-of-somebody"
ADMIN = token("admin", sub="ada")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that is logged at debug level, as a server would write it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    out = io.StringIO()
    set_up_logging("debug", "json", out)
    yield out
    root.handlers[:] = handlers
    root.setLevel(level)


@asynccontextmanager
async def collecting() -> AsyncIterator[None]:
    """The garbage collector all the time: a task that nobody holds is gone at its next wait."""

    async def collect() -> None:
        while True:
            gc.collect()
            await asyncio.sleep(0.02)

    task = asyncio.create_task(collect())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def journey(api: Api, provider: FakeProvider, receiver: Receiver, host: PictureHost) -> list[str]:
    """Pictures by bytes and by an address, and a failure that quotes the prompt; how each ended."""
    workflow_id = await api.workflow(node("n", prompt=PROMPT))
    ended = []
    quoted = ProviderError(f"No: {PROMPT}", ErrorClass.PERMANENT, vendor_message=f"{PROMPT} {KEY}")
    by_address = Finished((ImageResult(None, url=f"{host.origin}/a.png?sig=hush-hush"),), Cost(5, "price"))
    for answer in (finished(PICTURE), by_address, quoted):
        provider.answers = [answer]
        body = {"provider": "fake", "webhookUrl": f"{receiver.origin}/hush-hush", "metadata": {"note": PROMPT}}
        job = await api.run(workflow_id, "n", body)
        ended.append((await api.finished(job["jobId"]))["status"])
    await receiver.heard(3)
    return ended


def settings(folder: Path) -> Settings:
    return read_settings(
        data=folder,
        fetch_allow=("127.0.0.1",),
        outgoing_secret=SIGNING,
        secret=SECRET,
        openai_api_key=KEY,
        default_provider="demo",
    )


async def test_logs_hold_no_secret_no_prompt_and_no_picture_and_no_task_is_lost(
    tmp_path: Path, log: io.StringIO
) -> None:
    provider = FakeProvider()
    async with (
        Receiver(secrets=(SIGNING,)).serving() as receiver,
        PictureHost(pages={"/a.png": (200, {}, PICTURE)}).serving() as host,
        collecting(),
        running(settings(tmp_path / "data"), tmp_path, Parts(providers=(provider,))) as api,
    ):
        api.client.headers.update(bearer(ADMIN))
        assert await journey(api, provider, receiver, host) == ["completed", "completed", "failed"]
        link = await api.post(f"/api/workflows/{await api.workflow()}/share", {"role": "viewer"})
        shared = link.json()["token"]
        await api.client.get(f"/api/workflows?token={shared}")
    assert len(receiver.verified) == 3
    text = log.getvalue()
    assert '"action": "run_completed"' in text
    assert logging.getLogger("jobs.actor").isEnabledFor(logging.DEBUG)
    coded = base64.b64encode(PICTURE).decode()[40:80]
    for secret in (
        SECRET,
        SIGNING[6:30],
        KEY,
        ADMIN,
        shared,
        PROMPT,
        "walrus",
        "hush-hush",
        coded,
        "Task was destroyed",
    ):
        assert secret not in text, secret
