"""The operators' files match the code: each metric in the dashboard, alerts and page exists, and vice versa."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.live import scripted
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.metrics import Metrics
from winnow.server.settings import Settings

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def names(tokenizer: Tokenizer) -> set[str]:
    """Return the name of each series that the server exports."""
    metrics = Metrics(scripted(tokenizer))
    found: set[str] = set()
    for family in metrics.registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}[family.type]
        found |= {family.name + suffix for suffix in suffixes}
    return found


@pytest.mark.parametrize("file", ["grafana-dashboard.json", "alerts.yml"])
def test_every_metric_in_a_query_exists(names: set[str], file: str) -> None:
    asked = set(re.findall(r"\b(?:winnow|process)_[a-z_]+(?=[{\[ )\\]|$)", (DOCS / file).read_text(), re.M))
    assert len(asked) > 8
    assert asked <= names


def test_every_metric_is_on_the_page(names: set[str]) -> None:
    page = (DOCS / "operations.md").read_text()
    for name in names:
        if name.startswith("winnow_"):
            assert re.sub("_(bucket|sum|count)$", "", name) in page, name
    for name in re.findall(r"`(winnow_[a-z_]+)", page):
        assert name in names or f"{name}_bucket" in names, name


def test_the_dashboard_has_no_empty_panel_and_no_overlap() -> None:
    panels = json.loads((DOCS / "grafana-dashboard.json").read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        grid = panel["gridPos"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"])


def test_every_setting_on_the_page_has_the_default_given_there() -> None:
    page = (DOCS / "operations.md").read_text()
    for name, told in re.findall(r"`([a-z_]+)` \(([\d,]+)\)", page):
        assert Settings.model_fields[name].default == int(told.replace(",", "")), name
