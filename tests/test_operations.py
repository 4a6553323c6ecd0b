"""The operators' files match the code: each metric in the dashboard, alerts and page exists, and vice versa."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live import scripted
from winnow.models.engines import environment
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.metrics import Metrics
from winnow.server.settings import ALIASES, Settings

DOCS = Path(__file__).parents[1] / "docs"
SHUTDOWN_SECONDS = Settings.model_fields["shutdown_seconds"].default


def blocks(language: str) -> list[str]:
    """Return the page's blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / "operations.md").read_text(), re.M | re.S)


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


def test_containers_are_stopped_later_than_the_server_stops() -> None:
    seconds = re.findall(r"--stop-timeout (\d+)", "".join(blocks("sh")))
    assert seconds
    assert all(int(each) > SHUTDOWN_SECONDS for each in seconds)


def test_the_kubernetes_deployment_fits_the_image_and_the_server() -> None:
    [deployment] = map(yaml.safe_load, blocks("yaml"))
    pod: dict[str, Any] = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    spec = pod["spec"]
    assert spec["terminationGracePeriodSeconds"] > SHUTDOWN_SECONDS
    image = (DOCS.parent / "Dockerfile").read_text()
    user = {"runAsUser": spec["securityContext"]["runAsUser"], "runAsGroup": spec["securityContext"]["runAsGroup"]}
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in image
    [container] = spec["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    port = container["ports"][0]["containerPort"]
    assert f"EXPOSE {port}\n" in image
    for probe, path in {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}.items():
        assert container[probe]["httpGet"] == {"path": path, "port": port}
    flags = [argument.partition("=")[0] for argument in container["args"]]
    assert {flag.removeprefix("--").replace("-", "_") for flag in flags} <= {*Settings.model_fields, *ALIASES}


def test_every_cache_that_moves_with_the_home_is_on_the_page() -> None:
    page = (DOCS / "operations.md").read_text()
    assert [name for name in environment._HOME_CACHES if f"| `{name}` |" not in page] == []
