"""`winnow serve --ray` beside an application that runs already, with Ray Serve scripted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from winnow.models.errors import SettingsError
from winnow.server.ray import online
from winnow.server.ray.app import NAME
from winnow.server.settings import Settings


class ScriptedServe:
    """Ray Serve with some applications; `reason` is why none can be deployed."""

    def __init__(self, running: set[str], reason: str | None) -> None:
        self.running = running
        self.reason = reason
        self.is_up = True

    def status(self) -> SimpleNamespace:
        deployments = {NAME: SimpleNamespace(message=self.reason or "")}
        return SimpleNamespace(applications={name: SimpleNamespace(deployments=deployments) for name in self.running})

    def run(self, app: object, name: str, route_prefix: str) -> None:
        self.running.add(name)
        if self.reason:
            raise RuntimeError("Deploying application winnow failed")

    def delete(self, name: str) -> None:
        self.running.remove(name)

    def shutdown(self) -> None:
        self.is_up = False


def scripted(monkeypatch: pytest.MonkeyPatch, running: set[str], reason: str | None = None) -> ScriptedServe:
    serve = pytest.importorskip("ray.serve")
    made = ScriptedServe(running, reason)
    for name in ("status", "run", "delete", "shutdown"):
        monkeypatch.setattr(serve, name, getattr(made, name))
    monkeypatch.setattr(online, "_start_proxies", lambda settings: None)
    return made


def test_a_failed_command_leaves_the_application_that_ran_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: it was deleted, and its clients were refused."""
    serve = scripted(monkeypatch, {NAME}, "CheckpointError: no such model on this node")
    with (
        pytest.raises(SettingsError, match=r"no such model on this node; the application that ran before is not"),
        online._running(None, Settings()),
    ):
        pass
    assert (serve.running, serve.is_up) == ({NAME}, True)


@pytest.mark.parametrize("others", [set(), {"another"}])
def test_a_failed_command_removes_its_own_application(others: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    serve = scripted(monkeypatch, set(others), "no memory")
    with (
        pytest.raises(SettingsError, match=r"the replicas cannot start: no memory$"),
        online._running(None, Settings()),
    ):
        pass
    assert (serve.running, serve.is_up) == (others, bool(others))


@pytest.mark.parametrize("before", [set(), {NAME}])
def test_what_a_command_serves_or_has_taken_over_ends_with_it(
    before: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = scripted(monkeypatch, set(before))
    with online._running(None, Settings()):
        assert serve.running == {NAME}
    assert (serve.running, serve.is_up) == (set(), False)
