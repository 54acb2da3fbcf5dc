"""
A lone idle stock client stays connected: `python -m tests.soak.idle [SECONDS]`, 120 s if none are named.

The stock client gives a connection up on which no message came for 30 s. All that comes to somebody alone in a room
is their own renewal of awareness, each 15 s, which the server has to send back.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.support.node import NodePeers, install_peer
from tests.support.server import ServerFactory

LEAST_S = 120.0


async def watch(seconds: float, folder: Path) -> int:
    """Leave one client alone; how often its connection was closed."""
    factory, peers = ServerFactory(folder), NodePeers(folder)
    try:
        server = await factory(env={"DARKROOM_DEMO_DELAY_S": "0"})
        peer = await peers(server.ws_url, "alone")
        await peer.set_awareness({"user": {"name": "Ada"}})
        # A client that gives up by itself reports no close code, and is back at once: every change counts.
        await peer.watch("status", "connected")
        await asyncio.sleep(seconds)
        seen = await peer.seen("status", "connected")
    finally:
        peers.close_all()
        factory.stop_all()
    lost = seen.count(False)
    sys.stdout.write(f"{seconds:.0f} s alone: connection lost {lost} times\n")
    return lost


def main(seconds: float = LEAST_S) -> int:
    """Run it; the exit code."""
    install_peer()
    with tempfile.TemporaryDirectory() as folder:
        return int(asyncio.run(watch(seconds, Path(folder))) > 0)


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2])))
