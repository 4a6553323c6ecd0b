"""Offline runs on a policy with a chat template of its own: on a server that tells only its name, and refusals."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.live import ScriptedServer, scripted
from tests.models.byte_level import ship, shipped
from winnow.models.errors import RunError
from winnow.server.distill.command import RunOptions, distill
from winnow.server.distill.export import CHAT_TEMPLATE, ExportOptions
from winnow.server.distill.export.formats import export
from winnow.server.distill.outcome import INCOMPLETE
from winnow.server.distill.plans import Choices
from winnow.server.settings import Settings

pytestmark = pytest.mark.usefixtures("signal_handlers")


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """Restores the handlers that `distill` replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def options(folder: Path, dialogs: list[list[str]], **more: Any) -> RunOptions:
    """A run on dialogs of these roles."""
    rows = [{"messages": [{"role": role, "content": f"{role}?"} for role in roles]} for roles in dialogs]
    prompts = folder / "prompts.jsonl"
    prompts.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    choices = Choices(2, (1.0,), False, 1.0, 8, "llama2", 0, context_distillation=more.pop("distils", False))
    return RunOptions(str(prompts), folder / "run", choices, formats=more.pop("formats", ()), **more)


def test_a_server_with_a_template_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its rules hold for the dialogs, and no export claims another format."""
    policy = ship("ChatML", tmp_path / "policy")
    service = replace(scripted(shipped("ChatML").ours), template=shipped("ChatML").template)
    dialogs = [["user", "user"], ["assistant", "user"], ["system", "system", "user"]]
    with ScriptedServer.start(service) as server:
        with server.http as http:
            assert http.get("/v1/models").json()["data"][0]["chat_template"] == "tokenizer"
        assert distill(options(tmp_path, dialogs, server=f"{server.url}/v1", formats=("sft",)), Settings()) == 0
    run, data = tmp_path / "run", tmp_path / "run" / "export"
    assert json.loads((run / "manifest.json").read_text())["models"]["server"]["template"] == "tokenizer"
    assert len((data / "sft.jsonl").read_text().splitlines()) == 3
    assert not (data / CHAT_TEMPLATE).exists()
    for told in ((data / "README.md").read_text(), caplog.text):
        assert "The chat format is the served model's own (`tokenizer`), which is not known here" in told
    export(run, ["sft", "token-ids"], ExportOptions(tokenizer=str(policy)))
    assert (data / CHAT_TEMPLATE).read_text() == shipped("ChatML").template.source


def test_preprompts_need_a_template_with_system_messages(tmp_path: Path) -> None:
    policy = ship("Gemma's format", tmp_path / "policy")
    settings = Settings(policy={"checkpoint": str(policy)})
    with pytest.raises(RunError, match=r"context distillation needs system messages: .*System role not supported"):
        distill(options(tmp_path, [["user"]], distils=True), settings)
    assert not (tmp_path / "run").exists()


def test_a_dialog_that_the_template_refuses_is_a_line_at_fault(tmp_path: Path) -> None:
    policy = ship("Gemma's format", tmp_path / "policy")
    settings = Settings(policy={"checkpoint": str(policy)})
    assert distill(options(tmp_path, [["system", "user"], ["user", "user"]]), settings) == INCOMPLETE
    told = (tmp_path / "run" / "errors.jsonl").read_text().splitlines()
    assert ["System role not supported" in told[0], "must alternate" in told[1]] == [True, True]
