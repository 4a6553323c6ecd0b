from __future__ import annotations

import subprocess
import sys

import pytest

from tests.live import WINNOW
from winnow.server.distill import recipe
from winnow.server.distill.export import ExportOptions
from winnow.server.settings import options


def run(*arguments: str, columns: int = 300) -> subprocess.CompletedProcess[str]:
    environment = {"COLUMNS": str(columns), "TERM": "dumb", "PATH": ""}
    return subprocess.run(
        [WINNOW, *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment
    )


@pytest.mark.parametrize("columns", [80, 300])
@pytest.mark.parametrize("command", ["serve", "check"])
def test_help_documents_every_setting(command: str, columns: int) -> None:
    """On 80 columns a table cut `--helpfulness-card` short, so that nobody could have typed it."""
    text = run(command, "--help", columns=columns).stdout
    assert max(map(len, text.splitlines())) <= columns
    unwrapped = "".join(text.split())
    for option in options():
        assert f"--{option.name.replace('_', '-')} " in text
        assert option.description
        assert "".join(option.description.split()) in unwrapped


def test_help_without_a_command_lists_the_commands() -> None:
    text = run("--help").stdout
    for command in ("doctor", "serve", "check", "plan", "chat", "distill", "export", "report", "version"):
        assert command in text


def test_the_offline_commands_explain_themselves() -> None:
    text = run("distill", "--help").stdout
    assert "Exit status: 0" in text
    for option in ("--candidates", "-k", "--sweep", "--context-distillation", "--in-flight", "--policy", "--json"):
        assert option in text
    assert "--port" not in text
    text = run("export", "--help").stdout
    for name, field in ExportOptions.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert (field.description or "none")[:40] in text
    assert run("distill", "--print-recipe").stdout == recipe.DEFAULT.read_text(encoding="utf-8")


def test_plan_has_only_the_settings_that_decide_memory() -> None:
    text = run("plan", "--help").stdout
    for option in ("--card-gib", "--policy", "--dtype", "--context", "--rm-memory", "--kv-cache-gib"):
        assert option in text
    assert "--port" not in text


def test_random_weights_cannot_be_checked() -> None:
    done = run("check", "--load-format", "dummy")
    assert done.returncode == 1
    assert done.stderr.startswith("winnow: load_format")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--candidates", "0"], "candidates"),
        (["--candidates", "100"], "max_candidates"),
        (["--config", "absent.toml"], "no such settings file"),
        (["--safety-patterns", "("], "safety_patterns"),
    ],
)
def test_a_bad_setting_is_one_line(arguments: list[str], word: str) -> None:
    done = run("serve", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("winnow: ")
    assert word in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_version() -> None:
    from importlib.metadata import version

    assert run("version").stdout.strip() == version("winnow-llm")


def test_help_needs_no_engine() -> None:
    heavy = ("torch", "vllm", "fastapi")
    code = f"import sys; from winnow.server.cli import main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_missing_extra_is_reported_in_one_line() -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from winnow.server.cli import main; main.app(['serve'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("winnow: uvicorn is not installed")
    assert len(done.stderr.splitlines()) == 1


def test_a_secret_is_no_flag() -> None:
    """Every user of the machine can read a command line."""
    assert "--api-keys-file" in run("serve", "--help").stdout
    done = run("serve", "--api-keys", "wk-secret")
    assert done.returncode == 2
