"""The environment of the engines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from winnow.models.engines import environment


@pytest.mark.parametrize("cache", ["/proc/nowhere", "~nobody-of-this-name/cache"])
def test_where_the_cache_cannot_be_written_a_temporary_folder_takes_its_place(
    cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container that may write nothing at home, vLLM logged a traceback for each engine."""
    cleaned: list[tuple[object, ...]] = []
    monkeypatch.setattr("atexit.register", lambda *call, **_: cleaned.append(call))
    monkeypatch.setenv("VLLM_CACHE_ROOT", "")
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    environment._find_cache()
    folder = Path(os.environ["VLLM_CACHE_ROOT"])
    assert os.access(folder, os.W_OK)
    ((remove, path),) = cleaned
    remove(path)  # type: ignore[operator]
    assert not folder.exists()


def test_an_operators_cache_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path))
    environment._find_cache()
    assert os.environ["VLLM_CACHE_ROOT"] == str(tmp_path)


def test_a_kubernetes_service_called_vllm_names_no_port_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM ended the start at `VLLM_PORT=tcp://10.0.0.1:8000`, which a Service called vllm injects."""
    monkeypatch.setenv("VLLM_PORT", "tcp://10.0.0.1:8000")
    monkeypatch.setenv("VLLM_DP_MASTER_PORT", "UDP://[fd00::1]:8000")
    monkeypatch.setenv("VLLM_NIXL_SIDE_CHANNEL_PORT", "5600")
    environment._drop_misread()
    assert "VLLM_PORT" not in os.environ
    assert "VLLM_DP_MASTER_PORT" not in os.environ
    assert os.environ["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5600"


@pytest.mark.parametrize(
    ("value", "is_kept"), [("error", False), ("default,error::UserWarning", False), ("ignore", True)]
)
def test_warnings_as_errors_are_not_for_vllms_processes(
    value: str, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine without vLLM's cache, the process that looks up the architecture ended, and with it the start."""
    monkeypatch.setenv("PYTHONWARNINGS", value)
    environment._drop_misread()
    assert ("PYTHONWARNINGS" in os.environ) is is_kept
