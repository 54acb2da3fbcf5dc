import re

from server.accounts import RunAccounts
from server.metrics import Metrics
from tests.server.api import Api


async def test_a_run_is_counted_once_when_it_has_ended(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    job = await api.finished((await api.run(workflow_id, node_id))["jobId"])
    metrics = Metrics()
    accounts = RunAccounts(api.services.engine, metrics)
    for _ in range(2):
        accounts.hint(job["jobId"])
        accounts.hint("unknown")
        await accounts.count()
    text = metrics.render("")[0].decode()
    assert re.search(r'darkroom_runs_total\{provider="demo",status="completed"\} 1\.0', text)
    assert 'darkroom_run_duration_seconds_count{provider="demo",status="completed"} 1.0' in text
