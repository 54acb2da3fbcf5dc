"""A worker as a process of its own, to be killed: python -m tests.jobs.at_work database queue folder."""

import asyncio
import sys
from pathlib import Path

from crdt.database import create_engine
from tests.jobs.builders import FakeProvider, forever, workplace


async def work(database_url: str, docket_url: str, folder: str) -> None:
    engine = create_engine(database_url)
    provider = FakeProvider([forever()])
    async with workplace(engine, Path(folder), provider, docket_url, name="darkroom-killed"):
        await provider.submitted.wait()
        print("submitted", flush=True)  # noqa: T201 - the test waits for it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:4]))
