import logging

import pytest

from server.closings import LINES, Closings
from server.metrics import Metrics


def test_a_thousand_closings_are_a_thousand_in_numbers_and_a_handful_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    metrics = Metrics()
    closings = Closings(metrics, lambda: now)
    for _ in range(1000):
        closings.note(4400, "bad-message: an empty frame", "r" * 4000)
    closings.note(1013, "busy: full", "r")
    labels = {"code": "4400", "reason": "bad-message"}
    assert metrics.registry.get_sample_value("darkroom_websockets_closed_total", labels) == 1000
    lines = [vars(record) for record in caplog.records]
    assert len(lines) <= LINES.burst + 2
    assert len(lines[0]["room"]) == 140
    assert {line["code"] for line in lines} == {4400, 1013}
    now = 60.0
    closings.note(4400, "bad-message: an empty frame", "r")
    assert vars(caplog.records[-1])["untold"] == 1000 - (len(lines) - 1)
