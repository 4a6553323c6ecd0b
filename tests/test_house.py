"""The house: imports run one way, the wheel holds the tree, and the map stays short."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("models", "server", "clients", "loadtests")
ALLOWED = {
    "models": {"models"},
    "clients": {"clients"},
    "server": {"server", "models", "clients"},
    "loadtests": {"loadtests", "clients"},
}
PEERS = {"loadtests", "clients", "models"}
"""What the baselines may import besides: they ask the demo models too."""


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def sources(part: str) -> list[Path]:
    return sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", PARTS)
def test_imports_run_one_way(part: str) -> None:
    for path in sources(part):
        ours = {name.split(".")[1] for name in imports(path) if name.startswith("winnow.")}
        assert ours <= (PEERS if path.is_relative_to(ROOT / "loadtests" / "peers") else ALLOWED[part]), path


def test_vllm_is_imported_where_engines_are_started_and_inside_their_processes() -> None:
    importers = [
        path for part in PARTS for path in sources(part) if any(n.split(".")[0] == "vllm" for n in imports(path))
    ]
    assert importers == [ROOT / "models" / "cpu_worker.py", ROOT / "models" / "engine.py"]


def test_nothing_imports_vllms_entrypoints() -> None:
    for module in ("engine", "cpu_worker"):
        assert not any("vllm.entrypoints" in name for name in imports(ROOT / "models" / f"{module}.py"))


@pytest.mark.parametrize("module", ["winnow.clients", "winnow.clients.chat", "winnow.models.types"])
def test_light_modules_stay_light(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'vllm', 'fastapi', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_wheel_holds_the_tree(tmp_path: Path) -> None:
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    source = tmp_path / "source"  # a copy: setuptools would leave a build folder, and pack stale files from it
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("winnow/")}
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    files = [path for part in PARTS for path in sources(part)]
    for package, patterns in data["package-data"].items():
        files += [path for pattern in patterns for path in (ROOT / data["package-dir"][package]).glob(pattern)]
    assert packed == {f"winnow/{path.relative_to(ROOT)}" for path in files}


def test_the_map_is_short_and_names_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 50
    for part in ("models", "server", "clients"):
        for path in sources(part):
            if path.name != "__init__.py" and "demo/" not in str(path.relative_to(ROOT)):
                assert path.stem in text, path


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]
    decisions = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    for requirement in wanted:
        name = requirement.split(";")[0].split("[")[0].split(">")[0].split("=")[0].strip()
        assert name == "winnow-llm" or f"`{name}`" in decisions, name
