import asyncio
from collections.abc import Mapping
from typing import Any

from crdt.json import Json
from jobs.progress import Reporter
from tests.jobs.builders import START


class Sent:
    """Hears what a reporter sends."""

    def __init__(self) -> None:
        self.payloads: list[Mapping[str, Json]] = []
        self.more = asyncio.Event()

    def __call__(self, _workflow_id: str, payload: Mapping[str, Json]) -> None:
        self.payloads.append(payload)
        self.more.set()

    async def count(self, number: int) -> None:
        async with asyncio.timeout(5):
            while len(self.payloads) < number:
                self.more.clear()
                await self.more.wait()

    @property
    def fractions(self) -> list[Any]:
        return [payload.get("progress") for payload in self.payloads]


def report(reporter: Reporter, fraction: float, run_id: str = "r") -> None:
    reporter.report(
        "w", "n", run_id, stage="generating", progress=fraction, preview_url=None, started_at=START, by="Ann"
    )


async def test_the_first_report_goes_at_once_and_says_everything() -> None:
    sent = Sent()
    report(Reporter(sent, 60), 0.1)
    assert sent.payloads == [
        {
            "nodeId": "n",
            "runId": "r",
            "stage": "generating",
            "progress": 0.1,
            "startedAt": START.isoformat(),
            "by": "Ann",
        }
    ]


async def test_of_many_reports_the_latest_is_sent_when_the_time_is_up() -> None:
    sent = Sent()
    reporter = Reporter(sent, 0.05)
    for hundredth in range(100):
        report(reporter, hundredth / 100)
    await sent.count(2)
    assert sent.fractions == [0.0, 0.99]


async def test_runs_do_not_hold_each_other_up() -> None:
    sent = Sent()
    reporter = Reporter(sent, 60)
    for number in range(5):
        report(reporter, 0.5, f"r{number}")
    assert len(sent.payloads) == 5


async def test_the_end_is_sent_at_once_and_nothing_after_it() -> None:
    sent = Sent()
    reporter = Reporter(sent, 0.02)
    report(reporter, 0.1)
    report(reporter, 0.2)
    reporter.clear("w", "n", "r")
    report(reporter, 0.0, "other")
    report(reporter, 0.9, "other")
    await sent.count(4)
    assert sent.fractions == [0.1, None, 0.0, 0.9]
    assert sent.payloads[1] == {"nodeId": "n", "runId": "r", "ended": True}
