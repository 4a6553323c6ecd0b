"""The environment of the engines."""

from __future__ import annotations

import getpass
import os
import shutil
import sys
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
    for variable in environment._HOME_CACHES:
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    environment._find_caches()
    ((remove, path),) = cleaned
    assert os.access(str(path), os.W_OK)
    folders = {os.environ[variable] for variable in environment._HOME_CACHES}
    assert {str(Path(folder).parent) for folder in folders} == {path}
    assert len(folders) == len(environment._HOME_CACHES)
    remove(path)  # type: ignore[operator]
    assert not Path(str(path)).exists()


def test_where_only_the_home_cannot_be_written_all_lie_in_the_cache_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Triton and FlashInfer do not read XDG_CACHE_HOME; on a read-only home the first kernel could not be built."""
    for variable in environment._HOME_CACHES:
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", "/proc/nowhere")
    environment._find_caches()
    assert {Path(os.environ[variable]).parent for variable in environment._HOME_CACHES} == {tmp_path}


def test_a_user_without_a_home_gets_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FlashInfer asks for the home as it is imported, and vLLM imports it on every card."""
    for variable in environment._HOME_CACHES:
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", "")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", _no_such_user)
    environment._find_caches()
    assert os.environ["HOME"] == str(tmp_path)


def test_a_user_without_a_name_gets_one(clean: pytest.MonkeyPatch) -> None:
    """PyTorch's compiler names its folder after the user, and ended with a KeyError."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        clean.setenv(variable, "")
        clean.delenv(variable)
    clean.setattr("pwd.getpwuid", _no_such_user)
    environment.prepare(offline=True, compiled=True)
    assert getpass.getuser() == str(os.getuid())


def test_an_empty_variable_names_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """vLLM wrote into the working directory."""
    names = {"XDG_CACHE_HOME", *environment._HOME_CACHES}
    for name in names:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    environment._find_caches()
    assert not names & set(os.environ)


def _no_such_user(uid: int) -> None:
    raise KeyError(uid)


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", *environment._HOME_CACHES])
def test_a_file_is_no_cache_folder(variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr("atexit.register", lambda remove, path, **_: monkeypatch.setenv("REMOVED", path))
    for other in environment._HOME_CACHES:
        monkeypatch.setenv(other, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(variable, str(file))
    environment._find_caches()
    moved = environment._HOME_CACHES if variable == "XDG_CACHE_HOME" else [variable]
    assert all(os.environ[name] and not os.environ[name].startswith(str(file)) for name in moved)
    shutil.rmtree(os.environ.get("REMOVED", ""), ignore_errors=True)


@pytest.mark.parametrize("variable", environment._HOME_CACHES)
def test_an_operators_cache_is_kept(variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for other in environment._HOME_CACHES:
        monkeypatch.setenv(other, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.setenv(variable, str(tmp_path))
    environment._find_caches()
    assert os.environ[variable] == str(tmp_path)


def test_a_writable_home_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in environment._HOME_CACHES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    environment._find_caches()
    assert not set(environment._HOME_CACHES) & set(os.environ)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Leave nothing of `prepare` behind, and nothing set before it."""
    names = {*environment.COMMON, *environment.CPU, *environment.GPU, *environment.NOT_COMPILED}
    for name in {
        *names,
        "VLLM_CPU_OMP_THREADS_BIND",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        *environment._HOME_CACHES,
    }:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


def test_on_a_gpu_nothing_needs_nvcc_or_initialises_cuda(clean: pytest.MonkeyPatch) -> None:
    """vLLM's sampler warms up through FlashInfer, which compiles at run time; the engine died without nvcc."""
    clean.setattr(environment, "runs_on_gpu", lambda: True)
    environment.prepare(offline=True, compiled=False)
    assert os.environ["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
    assert os.environ["TORCHDYNAMO_DISABLE"] == "1"
    assert not {"OMP_WAIT_POLICY", "VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_CPU_OMP_THREADS_BIND"} & set(os.environ)


def test_on_cpu_nothing_of_a_gpu_is_set(clean: pytest.MonkeyPatch) -> None:
    clean.setattr(environment, "runs_on_gpu", lambda: False)
    environment.prepare(offline=False, compiled=True)
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert not {*environment.GPU, "TORCHDYNAMO_DISABLE", "HF_HUB_OFFLINE"} & set(os.environ)


def test_an_operators_choice_is_kept(clean: pytest.MonkeyPatch) -> None:
    clean.setattr(environment, "runs_on_gpu", lambda: True)
    clean.setenv("VLLM_USE_FLASHINFER_SAMPLER", "1")
    environment.prepare(offline=True, compiled=True)
    assert os.environ["VLLM_USE_FLASHINFER_SAMPLER"] == "1"


def test_engines_are_forked_only_while_torch_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(environment.START_METHOD, raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert environment.may_fork()
    monkeypatch.setenv(environment.START_METHOD, "spawn")
    assert not environment.may_fork(), "an operator's word counts"
    monkeypatch.setenv(environment.START_METHOD, "fork")
    assert environment.may_fork()
    monkeypatch.setitem(sys.modules, "torch", object())  # type: ignore[arg-type]
    assert not environment.may_fork(), "OpenMP's threads do not survive a fork"


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
