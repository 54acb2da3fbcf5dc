"""Two stock clients and a server that is killed in the middle, with edits on all sides of it: nobody loses anything."""

import asyncio
from typing import Any

from tests.support.api import canvas_api
from tests.support.node import NodePeer, NodePeers
from tests.support.peer import YPeer
from tests.support.server import ServerProcess

BURST = 200


def by_id(flow: dict[str, Any]) -> dict[str, Any]:
    return {node["id"]: node for node in flow["nodes"]}


async def edits(peer: NodePeer, name: str, when: str) -> None:
    """A node of the peer's own, a key that both write, and the prompt that both type in."""
    await peer.add_node(f"{name}-{when}", data={"by": name})
    await peer.set("shared", "data", "label", value=f"{name} {when}")
    await peer.set("shared", "data", f"{name}-{when}", value=when)
    await peer.call("typePrompt", nodeId="shared", index=0, text=f"{name}-{when}, ")


async def test_edits_before_during_and_after_a_kill_are_everybodys_at_the_end(
    server: ServerProcess, node_peer: NodePeers
) -> None:
    async with canvas_api(server.url) as api:
        ada, ben = await asyncio.gather(*(node_peer(server.ws_url, api.workflow_id) for _ in range(2)))
        await ada.add_node("shared", data={"prompt": "a fox"})
        await ben.wait("nodes", "shared", "data", "prompt", equals="a fox")
        await asyncio.gather(edits(ada, "ada", "before"), edits(ben, "ben", "before"))
        back_end = YPeer(server.ws_url, api.workflow_id, ack=True)
        async with back_end.connected():
            await back_end.add_image("acknowledged", "a heron")
            await back_end.durable()
            # Ben leaves of himself, Ada is torn off in the middle of a burst of edits.
            await ben.disconnect()
            burst = asyncio.gather(*(ada.set("shared", "data", f"burst-{n}", value=n) for n in range(BURST)))
            await back_end.until(lambda: "burst-0" in back_end.data("shared"))
            await server.kill()
            await burst
        await asyncio.gather(edits(ada, "ada", "offline"), edits(ben, "ben", "offline"))
        await server.start()
        assert "acknowledged" in by_id(await api.flow())
        await asyncio.gather(ada.wait("status", "connected", equals=True), ben.connect())
        await asyncio.gather(edits(ada, "ada", "after"), edits(ben, "ben", "after"))
        # Each tells the other that all it wrote has come: a connection keeps the order.
        await ada.add_node("end-ada")
        await ben.add_node("end-ben")
        await ada.wait("nodes", "end-ben")
        await ben.wait("nodes", "end-ada")
        fresh = await node_peer(server.ws_url, api.workflow_id)
        seen = [by_id(await peer.flow()) for peer in (ada, ben, fresh)]
        assert seen[0] == seen[1] == seen[2] == by_id(await api.flow())
        times = ("before", "offline", "after")
        made = {f"{name}-{when}" for name in ("ada", "ben") for when in times}
        assert seen[0].keys() == {"shared", "acknowledged", "end-ada", "end-ben"} | made
        shared = seen[0]["shared"]["data"]
        assert shared.keys() >= made | {f"burst-{n}" for n in range(BURST)}
        assert sorted(shared["prompt"].split(", ")) == sorted([*made, "a fox"])
        assert shared["label"] in {"ada after", "ben after"}
        assert server.log.count("Traceback") == 0
