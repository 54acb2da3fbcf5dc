"""The operator's page against the code: what it names is there."""

import re
from pathlib import Path

from jobs import caller, gallery, images
from jobs.liveness import LEASE_S
from jobs.policy import RetryPolicy
from providers import http
from server import streams
from tests.server.api import Api

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
CODE = "\n".join(
    path.read_text(encoding="utf-8")
    for package in ("crdt", "jobs", "server")
    for path in (ROOT / package).rglob("*.py")
)
NAMED = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?:\{[^`]*\})?`", PAGE))
NO_ACTION = {"worker_lost", "storage_unavailable", "run_events", "run_costs"}
"""Error codes and tables."""


async def test_every_metric_and_log_line_it_names_is_there(api: Api) -> None:
    metrics = set(re.findall(r"# TYPE darkroom_(\w+)", (await api.get("/metrics")).text))
    unknown = [
        name
        for name in NAMED - NO_ACTION
        if name not in metrics
        and name.removesuffix("_total") not in metrics
        and f'"{name}"' not in CODE
        and not name.startswith("call_")
    ]
    assert unknown == []


def test_log_lines_of_calls_are_those_of_outcomes() -> None:
    outcomes = {f"call_{outcome}" for outcome in caller.Outcome}
    assert {name for name in NAMED if name.startswith("call_")} <= outcomes


def test_its_numbers_are_those_of_the_code() -> None:
    policy, pace = RetryPolicy(), caller.CallPace()
    assert f"after {LEASE_S:g} s without a sign of life" in PAGE
    assert (policy.max_attempts, policy.upload_tries, policy.poll_limit, policy.attempt_limit_s) == (3, 3, 60, 300)
    assert (images.MAX_BYTES, images.MAX_PIXELS, images.MAX_EDGE_PX) == (http.MAX_IMAGE_BYTES, 36_000_000, 16_384)
    assert (http.MAX_IMAGE_BYTES, http.FETCH_TIMEOUT_S, http.MAX_REDIRECTS) == (64 * 1024**2, 60, 3)
    assert (gallery.DOWNLOADS, http.WRITE_BYTES) == (32, 1024**2)
    assert (streams.MAX_STREAMS, streams.MAX_OF_CANVAS) == (1000, 200)
    assert (pace.calls, pace.per_host, pace.limit_s, caller.ANSWER_BYTES, caller.KEEP.days) == (32, 4, 15, 4096, 30)
