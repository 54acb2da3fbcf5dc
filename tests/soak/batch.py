"""
How long the server's event loop stands still while 400 runs start and their pictures are made and shrunk:
`python -m tests.soak.batch`. Another process asks GET /health every 10 ms, see `tests.soak.loop`.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.bench.measure import quantile
from tests.soak.figures import bound, say
from tests.soak.loop import Beats, Phases
from tests.support.api import canvas_api
from tests.support.peer import YPeer
from tests.support.processes import ROOT
from tests.support.server import ServerProcess

RUNS: Final = 400
WANTED_MS: Final = 30.0
LIMIT_S: Final = 300.0
_ENDED: Final = ("completed", "failed", "cancelled")


async def go(server: ServerProcess) -> Phases:
    """Ask for the batch, and wait until all of it has ended."""
    phases = Phases()
    nodes = [{"id": f"n{number}", "data": {"prompt": f"a harbour, {number}"}} for number in range(RUNS)]
    async with (
        asyncio.timeout(LIMIT_S),
        canvas_api(server.url, nodes=nodes) as api,
        YPeer(server.ws_url, api.workflow_id).connected(),
    ):
        with phases("nobody"):
            await asyncio.sleep(3.0)
        spec = {"size": "256x256"}
        asked = [{"workflowId": api.workflow_id, "nodeId": node["id"], "promptSpec": spec} for node in nodes]
        with phases("400 runs"):
            answer = await api.client.post("/api/images/generate", json={"requests": asked})
            assert answer.status_code == 202, answer.text
            batch = answer.json()["batchId"]
            while True:
                seen = (await api.client.get(f"/api/images/batches/{batch}")).json()
                if sum(seen[name] for name in _ENDED) == RUNS:
                    break
                await asyncio.sleep(1.0)
        assert seen["completed"] == RUNS, seen
    return phases


async def measure(folder: Path) -> bool:
    """Run it; whether nobody waited longer than wanted."""
    server = ServerProcess(folder / "server", env={"DARKROOM_DEMO_DELAY_S": "1"})
    try:
        await server.start()
        command = [sys.executable, "-m", "tests.soak.loop", "--beat", str(server.port)]
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe)
        try:
            phases = await go(server)
            printed, _ = await asyncio.wait_for(child.communicate(b""), 30)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    finally:
        server.stop()
    beats = Beats(**json.loads(printed))
    say("milliseconds until GET /health was answered:")
    waits: list[float] = []
    for name, begin, end in phases.all:
        waits = beats.between(begin, end)
        p50, p99, most = quantile(waits, 0.5), quantile(waits, 0.99), max(waits, default=0.0)
        say(f"  {name:10} p50 {p50:6.1f}  p99 {p99:6.1f}  longest {most:6.1f}  ({end - begin:.1f} s)")
    say(f"  the heartbeat itself was late by {beats.own_s * 1000:.1f} ms at most")
    return bound("99 of 100 answers while 400 runs start", quantile(waits, 0.99), WANTED_MS, "ms")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="darkroom-soak-") as place:
        sys.exit(int(not asyncio.run(measure(Path(place)))))
