"""A caller as a process of its own, to be killed: python -m tests.jobs.calling database secret."""

import asyncio
import sys
from collections.abc import Sequence

from crdt.database import create_engine
from jobs import signing
from jobs.caller import Caller, CallPace
from jobs.calls import Calls


async def call(database_url: str, secret: str) -> None:
    async def keys() -> Sequence[bytes]:
        return signing.read_keys(secret)

    pace = CallPace(claim_s=1.0)
    async with Caller(Calls(create_engine(database_url)), keys, allow=("127.0.0.0/8",), pace=pace):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(call(*sys.argv[1:3]))
