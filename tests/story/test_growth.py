from tests.soak.year import Database
from tests.support.node import NodePeers
from tests.support.server import ServerFactory


async def test_a_stock_client_that_was_away_for_weeks_keeps_its_edit_and_everybody_elses(
    start_server: ServerFactory, node_peer: NodePeers
) -> None:
    """The server notes, compacts and heals by itself; only the age of what it noted is ours."""
    server = await start_server()
    away = await node_peer(server.ws_url, "r")
    await away.add_node("n1", data={"label": "first", "seed": 1})
    await away.disconnect()
    database = Database(server)
    for week in range(3):
        here = await node_peer(server.ws_url, "r")
        for number in range(5):
            await here.set("n1", "data", "label", value=f"week {week} {number}")
            await here.set("n1", "data", "steps", value=number)
        await here.call("disconnect")
        await database.until_closed()
        database.make_older()
    assert database.one("SELECT count(*) FROM document_archives")[0] >= 1
    assert database.one("SELECT guard IS NOT NULL FROM documents") == (1,)
    await away.set("n1", "data", "seed", value=2)
    await away.set("n1", "data", "label", value="offline")
    await away.connect()
    fresh = await node_peer(server.ws_url, "r")
    for peer in (away, fresh):
        assert await peer.wait("nodes", "n1", "data", "label", equals="offline") == "offline"
        assert await peer.get("nodes", "n1", "data") == {"label": "offline", "seed": 2, "steps": 4}
    await fresh.set("n1", "data", "label", value="after")
    assert await away.wait("nodes", "n1", "data", "label", equals="after") == "after"
    assert "healed" in server.log
