"""A worker as a process of its own, to be killed or frozen: python -m tests.jobs.at_work database queue folder.

It says "submitted" in the middle of its maker's call, which is answered once there is a file `go` in the folder.
"""

import asyncio
import sys
from pathlib import Path

from crdt.database import create_engine
from providers.base import Finished
from tests.jobs.builders import FakeProvider, finished, workplace


async def work(database_url: str, docket_url: str, folder: str) -> None:
    engine = create_engine(database_url)

    async def call(*_: object) -> Finished:
        while not (Path(folder) / "go").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.02)
        return finished()

    provider = FakeProvider([call])
    async with workplace(engine, Path(folder), provider, docket_url, name="darkroom-killed") as (_, worker):
        await provider.submitted.wait()
        print("submitted", flush=True)  # noqa: T201 - the test waits for it
        while worker.active:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.02)
        print("done", flush=True)  # noqa: T201 - the test waits for it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:4]))
