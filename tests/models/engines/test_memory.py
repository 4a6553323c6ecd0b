"""The memory planner: what it gives fits, everybody can work, and what does not fit is told with the arithmetic."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.models import demo
from winnow.models.engines.checkpoint import describe
from winnow.models.engines.memory import (
    BYTES,
    CUDA_CONTEXT,
    GIB,
    Fixed,
    Memory,
    MemoryPlan,
    Model,
    Models,
    Shape,
    Work,
    plan_card,
    plan_ram,
)
from winnow.models.errors import CheckpointError, DoesNotFit

LLAMA_2_7B = Shape(4096, 32, 32, 32, 128, 11008, 32000, 4096)
quick = settings(deadline=None, max_examples=60)  # no deadline: a busy machine is no failure
WORK = Work(context=None, sequences=256, candidates=256, eager=True)


def model(name: str, shape: Shape, dtype: str = "bfloat16") -> Model:
    return Model(name, shape, dtype, shape.parameters * BYTES[dtype])


def three(shape: Shape, dtype: str = "bfloat16") -> Models:
    rm = replace(shape, is_reward_model=True)
    return model("policy", shape, dtype), model("safety", rm, dtype), model("helpfulness", rm, dtype)


def card(gib: float, taken: float = 0.0) -> Memory:
    return Memory("the card", int(gib * GIB), int((gib - taken) * GIB))


shapes = st.builds(
    lambda heads, groups, layers, width, vocabulary, context, tied: Shape(
        heads * groups * 64, layers, heads * groups, heads, 64, width, vocabulary, context, tied
    ),
    st.integers(1, 16),
    st.integers(1, 8),
    st.integers(1, 80),
    st.integers(64, 28_672),
    st.integers(256, 128_000),
    st.integers(128, 8_192),
    st.booleans(),
)
works = st.builds(
    Work,
    st.none() | st.integers(128, 16_384),
    st.integers(1, 1_024),
    st.integers(1, 4_096),
    st.booleans(),
)
sizes = st.floats(4, 200)


def planned(memory: Memory, shape: Shape, work: Work) -> MemoryPlan | None:
    try:
        return plan_card(memory, three(shape), work)
    except DoesNotFit:
        return None


@quick
@given(sizes, st.floats(0, 0.5), shapes, works)
def test_what_is_planned_can_be_started(gib: float, taken: float, shape: Shape, work: Work) -> None:
    """As vLLM checks it: an engine's share of the total is free at its start, its own CUDA context taken."""
    memory = card(gib, taken * gib)
    plan = planned(memory, shape, work)
    if plan is None:
        return
    free = float(memory.free)
    for engine in plan.engines:
        assert engine.share * memory.total <= free - CUDA_CONTEXT
        assert engine.held <= engine.share * memory.total + CUDA_CONTEXT + 1
        free -= engine.claimed
        assert engine.candidates(engine.context) >= 1
    assert free >= 0.0199 * memory.total


@quick
@given(sizes, st.floats(0, 40), shapes, works)
def test_more_memory_never_gives_less(gib: float, more: float, shape: Shape, work: Work) -> None:
    small, large = planned(card(gib), shape, work), planned(card(gib + more), shape, work)
    if small is None:
        return
    assert large is not None
    for less, bigger in zip(small.engines, large.engines, strict=True):
        assert less.kv_cache <= bigger.kv_cache + 4  # bytes, rounded


@quick
@given(sizes, shapes, works)
def test_the_policy_gets_what_the_reward_models_do_not_want(gib: float, shape: Shape, work: Work) -> None:
    plan = planned(card(gib), shape, work)
    if plan is not None:
        assert plan.memory.free - plan.needed <= 4
        assert plan.safety.kv_cache == plan.helpfulness.kv_cache <= plan.policy.kv_cache * 1.01 + GIB


def test_a_llama_2_7b_is_what_the_paper_says() -> None:
    policy = model("policy", LLAMA_2_7B)
    assert LLAMA_2_7B.parameters == 6_738_415_616
    assert policy.weights == pytest.approx(13.48e9, rel=1e-3)
    assert policy.kv_per_token == GIB // 2048


def test_grouped_heads_and_tied_embeddings_are_counted() -> None:
    llama_3_8b = Shape(4096, 32, 32, 8, 128, 14336, 128_256, 8192)
    assert llama_3_8b.parameters == 8_030_261_248
    assert model("policy", llama_3_8b).kv_per_token == 128 * 1024
    assert replace(llama_3_8b, is_tied=True).parameters == 8_030_261_248 - 128_256 * 4096


@pytest.mark.parametrize(("gib", "policy_tokens"), [(139.8, 160_000), (79.6, 40_000)])
def test_three_7b_models_on_a_data_centre_card(gib: float, policy_tokens: int) -> None:
    plan = plan_card(card(gib), three(LLAMA_2_7B), WORK)
    assert plan.policy.tokens > policy_tokens
    assert plan.safety.tokens == plan.helpfulness.tokens == 12_288
    assert plan.policy.candidates(512) > 80


def test_what_does_not_fit_is_told_with_the_arithmetic() -> None:
    with pytest.raises(DoesNotFit) as caught:
        plan_card(card(24, taken=0.6), three(LLAMA_2_7B, "float32"), WORK)
    headline, *engines, kept, remedies = str(caught.value).splitlines()
    assert "need 93." in headline
    assert "the card has 24.0 GiB (23.4 GiB free)" in headline
    assert [line.split(":")[0].strip() for line in engines] == ["policy", "safety", "helpfulness"]
    assert "25.1 GiB weights (float32) + 2.4 GiB overhead + 4.0 GiB KV cache (4,112 tokens) = 31.5 GiB" in engines[0]
    assert "kept free" in kept
    assert "--dtype bfloat16" in remedies
    assert "a card with 94 GiB free" in remedies


def test_a_shorter_context_helps_where_it_does() -> None:
    with pytest.raises(DoesNotFit, match=r"--context (\d+)") as caught:
        plan_card(card(48), three(LLAMA_2_7B), WORK)
    context = int(str(caught.value).split("--context ")[1].split(",")[0])
    assert plan_card(card(48), three(LLAMA_2_7B), replace(WORK, context=context))


def test_what_the_operator_fixes_is_kept() -> None:
    plan = plan_card(card(139.8), three(LLAMA_2_7B), WORK, Fixed(share=0.5), Fixed(kv_cache=4 * GIB))
    assert plan.policy.share == 0.5
    assert plan.policy.held - CUDA_CONTEXT == pytest.approx(0.5 * 139.8 * GIB)
    assert plan.safety.kv_cache == plan.helpfulness.kv_cache == 4 * GIB
    with pytest.raises(DoesNotFit, match="the three engines need"):
        plan_card(card(139.8), three(LLAMA_2_7B), WORK, Fixed(share=0.9))
    with pytest.raises(DoesNotFit, match=r"policy_memory 0\.1 is 8\.0 GiB, too little"):
        plan_card(card(80), three(LLAMA_2_7B), WORK, Fixed(share=0.1))
    with pytest.raises(DoesNotFit, match=r"rm_kv_cache_gib is 1\.0, too little for one sequence of 4,096"):
        plan_card(card(80), three(LLAMA_2_7B), WORK, rm=Fixed(kv_cache=GIB))


def test_the_machines_memory() -> None:
    """An untouched cache takes no memory, so that only what can never work is refused."""
    demos = (
        describe(str(demo.weights("policy")), "policy", "policy", "float32"),
        describe(str(demo.weights("safety-rm")), "reward model", "safety", "float32"),
        describe(str(demo.weights("helpfulness-rm")), "reward model", "helpfulness", "float32"),
    )
    caches = (GIB, GIB, GIB)
    assert plan_ram(Memory("this machine", 4 * GIB, GIB // 8), demos, WORK, caches).needed < 3.1 * GIB
    with pytest.raises(DoesNotFit, match=r"need 3\.0 GiB at least; this machine has 2\.0 GiB"):
        plan_ram(Memory("this machine", 2 * GIB, 2 * GIB), demos, WORK, caches)
    with pytest.raises(DoesNotFit, match="a machine with 78 GiB free"):
        plan_ram(Memory("this machine", 64 * GIB, 64 * GIB), three(LLAMA_2_7B, "float32"), WORK, caches)
    with pytest.raises(DoesNotFit, match=r"kv_cache_gib is 1\.0, too little"):
        plan_ram(Memory("this machine", 256 * GIB, 256 * GIB), three(LLAMA_2_7B, "float32"), WORK, caches)


def test_weights_are_counted_from_the_files_in_the_precision_they_are_served_in(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(demo.weights("policy"), tmp_path / "policy"))
    stored = (folder / "model.safetensors").stat().st_size
    counted = describe(str(folder), "policy", "policy", "bfloat16").weights
    assert counted == pytest.approx(stored, rel=0.01)
    assert describe(str(folder), "policy", "policy", "float32").weights == 2 * counted
    (folder / "model.safetensors").unlink()
    assert describe(str(folder), "policy", "policy", "bfloat16").weights == counted, "computed from the shape"


def test_a_config_without_sizes_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 64, "num_attention_heads": "many"}))
    with pytest.raises(CheckpointError, match="num_attention_heads is 'many'"):
        describe(str(tmp_path), "policy", "policy", "bfloat16")
