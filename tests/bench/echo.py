"""
The unit of all fan-out figures: a server that knows nothing and sends every message to everybody in the room.

One frame per message, built once, one write per member. No document, no database, no clean-up.
Run as `python -m tests.bench.echo PORT`.
"""

import asyncio
import contextlib
import sys
from collections import defaultdict

from websockets.asyncio.server import ServerConnection, serve

from crdt.protocol import binary_frame

with contextlib.suppress(ImportError):
    import uvloop


class Echo:
    """Members by room."""

    def __init__(self) -> None:
        self._rooms: defaultdict[str, set[ServerConnection]] = defaultdict(set)

    async def serve_one(self, connection: ServerConnection) -> None:
        """Tell everybody in the room, the sender too, what this member says."""
        assert connection.request is not None
        members = self._rooms[connection.request.path]
        members.add(connection)
        try:
            async for message in connection:
                assert isinstance(message, bytes)
                frame = binary_frame(message)
                for member in members:
                    member.transport.write(frame)
        finally:
            members.discard(connection)


async def main(port: int) -> None:
    """Serve until killed."""
    async with serve(Echo().serve_one, "127.0.0.1", port, compression=None, ping_interval=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    make_loop = uvloop.new_event_loop if "uvloop" in sys.modules else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main(int(sys.argv[1])))
