import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.server.api import Api

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "alerts.yml").read_text(encoding="utf-8")
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load(TEXT)["groups"] for rule in group["rules"]]
METRIC = re.compile(r"(?<![\w.])(darkroom_\w+)(?:\{([^}]*)\})?")
SUFFIX = re.compile(r"_(?:total|bucket|count|sum|created)$")


async def known(api: Api) -> dict[str, frozenset[str]]:
    """The labels of every metric, by its name."""
    await api.get("/metrics")
    found = {}
    for name, collector in api.services.metrics.registry._names_to_collectors.items():
        found[name] = frozenset(getattr(collector, "_labelnames", ()))
    for family in api.services.metrics.registry.collect():
        found.setdefault(family.name, frozenset())
    return found


async def test_every_metric_and_label_that_an_alert_looks_at_is_there(api: Api) -> None:
    metrics = await known(api)
    for rule in RULES:
        names = METRIC.findall(rule["expr"])
        assert names or rule["alert"] == "DarkroomDown", rule
        for name, selectors in names:
            bare = name if name in metrics else SUFFIX.sub("", name)
            assert bare in metrics, f"{rule['alert']}: there is no metric {name}"
            labels = set(re.findall(r"(\w+)\s*[=!]", selectors))
            assert labels <= metrics[bare], f"{rule['alert']}: {name} has no label {labels - metrics[bare]}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_every_alert_says_what_is_wrong_and_the_handbook_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert f"`{rule['alert']}`" in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_every_label_that_a_summary_names_is_one_of_its_result(rule: dict[str, Any]) -> None:
    named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    kept = {
        label for group in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in group.replace(" ", "").split(",")
    }
    assert named <= kept
