"""The house: imports run one way and in no circle, light modules stay light, and the wheel holds the product."""

from __future__ import annotations

import ast
import graphlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Collection, Iterator
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
SHARED = {"winnow.models.statistics", "winnow.models.reporting"}
"""The parts of models that the load tester may use: statistics and the look of reports."""
COMMAND_LINE = "server/cli/main.py"
"""The one module of the server that imports the load tester, to register its command."""


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def imported(path: Path, modules: Collection[str]) -> Iterator[str]:
    """The modules of ours that a file imports names or modules from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in modules else node.module for name in found if node.module in modules)


def sources(part: str) -> list[Path]:
    return sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", PARTS)
def test_imports_run_one_way(part: str) -> None:
    for path in sources(part):
        ours = {name for name in imports(path) if name.startswith("winnow.")}
        allowed = set(ALLOWED[part])
        if str(path.relative_to(ROOT)) == COMMAND_LINE:
            allowed |= {"loadtests"}
        if path.is_relative_to(ROOT / "loadtests" / "benchmarks"):
            allowed |= {"models"}
        elif part == "loadtests":
            ours = {name for name in ours if not any(f"{name}.".startswith(f"{shared}.") for shared in SHARED)}
            ours.discard("winnow.models")
        assert {name.split(".")[1] for name in ours} <= allowed, path


def test_the_pipeline_knows_neither_http_nor_files() -> None:
    for path in sources("server"):
        ours = {name for name in imports(path) if name.startswith("winnow.server")}
        if path.is_relative_to(ROOT / "server" / "pipeline"):
            assert not any(name.startswith(("winnow.server.api", "winnow.server.distill")) for name in ours), path


def test_the_doctor_knows_neither_http_nor_files_of_runs() -> None:
    for path in (ROOT / "server" / "doctor").rglob("*.py"):
        assert not any(name.startswith(("winnow.server.api", "winnow.server.distill")) for name in imports(path)), path


def test_the_page_knows_nothing_of_the_server() -> None:
    for path in (ROOT / "server" / "web").rglob("*.py"):
        assert not any(name.startswith("winnow.") for name in imports(path) if "server.web" not in name), path


def test_runs_know_of_http_only_what_responses_look_like() -> None:
    for path in (ROOT / "server" / "distill").rglob("*.py"):
        of_api = {name for name in imports(path) if name.startswith("winnow.server.api.")}
        assert all(f"{name}.".startswith("winnow.server.api.responses.") for name in of_api), path


def test_replicas_know_no_command_line() -> None:
    for path in (ROOT / "server" / "ray").rglob("*.py"):
        assert not any(name.startswith("winnow.server.cli") for name in imports(path)), path


def test_the_store_knows_no_http() -> None:
    used = ("records", "identity", "manifest", "export")
    for path in (ROOT / "server" / "store").rglob("*.py"):
        assert not any(name.startswith("winnow.server.api") for name in imports(path)), path
        assert {name.split(".")[3] for name in imports(path) if name.startswith("winnow.server.distill.")} <= set(used)


def test_ray_is_imported_in_one_room() -> None:
    importers = {
        path for part in PARTS for path in sources(part) if any(n.split(".")[0] == "ray" for n in imports(path))
    }
    assert importers
    assert all(path.is_relative_to(ROOT / "server" / "ray") for path in importers)


def test_preference_collection_knows_no_http() -> None:
    for path in (ROOT / "server" / "annotation").rglob("*.py"):
        assert not any(name.startswith("winnow.server.api") for name in imports(path)), path


def test_reward_models_are_measured_without_http_and_runs() -> None:
    rows = ("reader", "rows", "dialogs", "files")
    for path in (ROOT / "server" / "rm").rglob("*.py"):
        distill = {name.split(".")[3] for name in imports(path) if name.startswith("winnow.server.distill.")}
        assert distill <= set(rows), path
        assert not any(name.startswith("winnow.server.api") for name in imports(path)), path


def test_training_does_not_know_the_demo() -> None:
    for path in (ROOT / "models" / "training").rglob("*.py"):
        assert not any(name.startswith("winnow.models.demo") for name in imports(path)), path


def test_no_import_runs_in_a_circle() -> None:
    modules = {
        "winnow." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for part in PARTS
        for path in sources(part)
    }
    graph = {name: {*imported(path, modules)} - {name} for name, path in modules.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


VLLM_MODULES = (
    "vllm",
    "vllm_engine",
    "vllm_policy",
    "vllm_reward_model",
    "vllm_sampling",
    "vllm_process",
    "vllm_cpu_worker",
    "vllm_loader",
)


def test_vllm_is_imported_where_engines_are_started_and_inside_their_processes() -> None:
    importers = {
        path for part in PARTS for path in sources(part) if any(n.split(".")[0] == "vllm" for n in imports(path))
    }
    engines = ROOT / "models" / "engines"
    assert importers == {engines / f"{module}.py" for module in VLLM_MODULES}


def test_nothing_imports_vllms_entrypoints() -> None:
    for module in VLLM_MODULES:
        assert not any("vllm.entrypoints" in name for name in imports(ROOT / "models" / "engines" / f"{module}.py"))


@pytest.mark.parametrize(
    "module",
    [
        "winnow.clients",
        "winnow.clients.chat.conversation",
        "winnow.models.types",
        "winnow.loadtests",
        "winnow.loadtests.command",
    ],
)
def test_light_modules_stay_light(module: str) -> None:
    heavy = ("torch", "vllm", "fastapi", "transformers", "prompt_toolkit")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    source = folder / "source"  # a copy: setuptools would leave a build folder, and pack stale files from it
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_tree(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("winnow/")}
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    files = [path for part in PARTS for path in sources(part) if "benchmarks" not in path.parts]
    for package, patterns in data["package-data"].items():
        files += [path for pattern in patterns for path in (ROOT / data["package-dir"][package]).glob(pattern)]
    assert packed == {f"winnow/{path.relative_to(ROOT)}" for path in files}


PAGE_IN_WHEEL = 200_000
"""Bytes by which the page, the store and the collection of preferences may make the wheel larger."""
INSTALLED = """
import json, winnow.server.web
from fastapi import FastAPI
from starlette.testclient import TestClient
from winnow.server.store.schema import migrations
from winnow.server.web.files import page_files
from winnow.server.web.routes import routes
files = page_files()
app = FastAPI()
app.include_router(routes(files))
client = TestClient(app)
sent = {path: client.get(path).status_code for path in files}
print(json.dumps([winnow.server.web.__file__, sent, [step.number for step in migrations()]]))
"""


def test_an_installed_wheel_serves_the_page_and_finds_its_migrations(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, which finds dependencies in this one. Others forgot their page (phoenix 11816)."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel],
        check=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    done = subprocess.run([python, "-I", "-c", INSTALLED], capture_output=True, text=True, check=True, cwd=tmp_path)
    place, sent, steps = json.loads(done.stdout.splitlines()[-1])
    assert Path(place).is_relative_to(packages)
    static = {path.name for path in (ROOT / "server" / "web" / "static").iterdir()} - {"index.html"}
    assert sent == {"/": 200, **{f"/page/{name}": 200 for name in static}}
    assert steps == list(range(1, len(list((ROOT / "server" / "store" / "migrations").glob("*.sql"))) + 1))


def test_the_page_and_the_store_are_small(wheel: Path) -> None:
    rooms = ("winnow/server/web/", "winnow/server/store/", "winnow/server/annotation/")
    sizes = {
        item.filename: item.compress_size
        for item in zipfile.ZipFile(wheel).infolist()
        if item.filename.startswith(rooms)
    }
    assert sum(sizes.values()) < PAGE_IN_WHEEL, sizes


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]
    decisions = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    for requirement in wanted:
        name = requirement.split(";")[0].split("[")[0].split(">")[0].split("=")[0].strip()
        assert name == "winnow-llm" or f"`{name}`" in decisions, name
