"""Findings about the card and its driver, for engines that run on a GPU."""

from __future__ import annotations

from collections.abc import Iterator

from winnow.models.engines.hardware import Card
from winnow.models.engines.memory import GIB, gib
from winnow.server.doctor.facts import Facts
from winnow.server.doctor.findings import Finding

LEAST_CAPABILITY = (7, 5)
"""vLLM's wheels have no kernels for cards before Turing."""
OWN_CONTEXT = GIB
"""Memory of a card that may be taken before others are said to hold it: the query's own context, and the driver."""


MPS_LIMITS = ("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT")


def findings(facts: Facts) -> Iterator[Finding]:
    """Yield what follows from the facts about the card."""
    yield from _card(facts)
    yield from _driver(facts)


def _card(facts: Facts) -> Iterator[Finding]:
    card = facts.graphics.card
    if card is None:
        yield Finding(
            "problem",
            "no_card",
            f"The engines installed here need an NVIDIA card: {facts.graphics.error}.",
            "Check `nvidia-smi`, CUDA_VISIBLE_DEVICES, and in a container --gpus all. Without a card: "
            "pip install 'winnow-llm[cpu]' in a new environment.",
        )
        return
    if card.capability < LEAST_CAPABILITY:
        yield Finding(
            "problem",
            "capability",
            f"{card.name} has compute capability {_dotted(card.capability)}; vLLM needs {_dotted(LEAST_CAPABILITY)}.",
            "Use a card of the Turing generation or later (T4, RTX 20, A100, L4, H100 and so on).",
        )
    else:
        yield Finding(
            "ok",
            "card",
            f"{card.name} can be used: {gib(card.total)}, compute capability {_dotted(card.capability)}.",
        )
    yield from _bfloat16(card, facts.wanted.dtype)
    yield _sharing(card)
    held = card.total - card.free
    if held > OWN_CONTEXT:
        yield Finding(
            "advice",
            "card_shared",
            f"Other processes hold {gib(held)} of the card's {gib(card.total)}.",
            "`nvidia-smi` lists them. The plan uses what is free when the engines start, so end them before.",
        )
    yield from _modes(facts, card)


def _modes(facts: Facts, card: Card) -> Iterator[Finding]:
    mode = facts.graphics.compute_mode
    if mode == "Prohibited" or (mode == "Exclusive_Process" and not card.mps):
        yield Finding(
            "problem",
            "compute_mode",
            f"The card is in compute mode {mode}, in which three engines cannot share it.",
            "sudo nvidia-smi --compute-mode=DEFAULT; Exclusive_Process needs MPS.",
        )
    limits = [name for name in MPS_LIMITS if name in facts.environment]
    if limits:
        yield Finding(
            "advice",
            "mps_limits",
            f"{' and '.join(limits)} limit each engine by itself, not all three together.",
            "Unset them: the memory plan shares the card.",
        )


def _bfloat16(card: Card, dtype: str) -> Iterator[Finding]:
    if card.has_bfloat16:
        return
    if dtype == "bfloat16":
        yield Finding(
            "problem",
            "bfloat16",
            f"{card.name} does not compute in bfloat16, which `dtype` asks for.",
            "--dtype float16, or auto, which is float16 here.",
        )
    else:
        yield Finding(
            "advice",
            "bfloat16",
            f"{card.name} does not compute in bfloat16; `dtype` auto is float16 here.",
            "Models that were trained in bfloat16 may overflow in float16: run `winnow check` on yours.",
        )


def _sharing(card: Card) -> Finding:
    how = 'docs/operations.md, "MPS", has the commands; then start Winnow anew.'
    if card.mps:
        return Finding("ok", "mps", "MPS runs, so kernels of the three engines overlap.")
    if card.mps is None:
        return Finding("advice", "mps", "Whether MPS runs on this card cannot be told.", f"If it does not: {how}")
    return Finding(
        "advice",
        "mps",
        "MPS does not run: kernels of the three engines take turns on the card, so scoring never overlaps decoding.",
        f"Start MPS's control daemon: nvidia-cuda-mps-control -d. {how}",
    )


def _driver(facts: Facts) -> Iterator[Finding]:
    wanted, has = facts.software.torch_cuda, facts.graphics.driver_cuda
    driver = f"Driver {facts.graphics.driver}" if facts.graphics.driver else "The driver"
    if facts.software.installed("torch") and wanted is None:
        yield Finding(
            "problem",
            "torch_build",
            f"torch {facts.software.installed('torch')} is built for CPU.",
            "Install torch's CUDA build, the one that vllm asks for: pip install --force-reinstall torch.",
        )
    elif wanted and has and has[0] < wanted[0]:
        yield Finding(
            "problem",
            "driver",
            f"{driver} supports CUDA {_dotted(has)}; torch is built for CUDA {_dotted(wanted)}.",
            f"Install a driver that supports CUDA {wanted[0]}, or a vllm whose torch is built for CUDA {has[0]}.",
        )
    elif wanted and has and has < wanted:
        yield Finding(
            "advice",
            "driver",
            f"{driver} supports CUDA {_dotted(has)}, torch is built for {_dotted(wanted)}. They "
            "work together, except for kernels that the driver itself would have to compile.",
            f"A driver for CUDA {_dotted(wanted)} removes the doubt.",
        )
    elif wanted and has:
        text = f"{driver} supports CUDA {_dotted(has)}; torch is built for {_dotted(wanted)}."
        yield Finding("ok", "driver", text)


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
