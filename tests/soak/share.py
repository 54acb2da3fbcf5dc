"""
Whether two workers share the work: `python -m tests.soak.share [RUNS]`, 600 runs if none are named.

All are asked for at once in a fleet whose vendor answers in some tenths of a second; neither worker may get fewer than
a third of them.
"""

import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import monotonic

from tests.soak.figures import bound, say
from tests.soak.kills import fill, insist, settle, topology
from tests.soak.slow_vendor import SlowVendor

RUNS = 600
_BATCH = 100


async def share(count: int, folder: Path) -> bool:
    """Ask for everything, wait, and count who did what."""
    async with SlowVendor(least_s=0.1, most_s=0.5).serving() as vendor:
        with topology("fleet", folder, vendor) as site:
            places = await fill(site, count)
            requests = [
                {
                    "workflowId": canvas,
                    "nodeId": node,
                    "provider": "openai",
                    "model": "gpt-image-2",
                    "promptSpec": {"basePrompt": f"{canvas} {node}", "quality": "low", "size": "1024x1024"},
                }
                for canvas, node in places
            ]
            begun = monotonic()
            for at in range(0, len(requests), _BATCH):
                answer = await insist(
                    site, "POST", "/api/images/generate", json={"requests": requests[at : at + _BATCH]}
                )
                assert answer.status_code == 202, answer.text
            await settle(site)
            took_s = monotonic() - begun
    done = Counter(call.caller for call in vendor.billed)
    say(f"{count} runs in {took_s:.1f} s: {dict(done)}")
    return all(
        [
            bound("share of the busier worker", max(done.values()) / count, 2 / 3, "of all"),
            bound("calls more than runs", len(vendor.billed) - count, 0, "calls"),
        ]
    )


def main(count: int = RUNS) -> int:
    """Run it; the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        return int(not asyncio.run(share(count, Path(folder))))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
