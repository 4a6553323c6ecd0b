"""The memory plan: it fits, every engine can work, and a plan that does not fit is refused with the arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.models import demo
from winnow.models.engines.checkpoint import describe
from winnow.models.engines.memory import (
    GIB,
    NOT_FIXED,
    EnginePlan,
    Fixed,
    Memory,
    MemoryPlan,
    Models,
    Work,
)
from winnow.models.engines.planning import (
    BATCHED_TOKENS,
    CPU_BLOCK,
    CPU_KV_CACHE,
    CPU_PROCESS,
    CPU_SCORING_BLOCK,
    CUDA_CONTEXT,
    PROMPT_SHARERS,
    plan_card,
    plan_policy,
    plan_ram,
    useful_kv_cache,
)
from winnow.models.engines.shape import BYTES, Model, Shape
from winnow.models.errors import DoesNotFit

LLAMA_2_7B = Shape.llama2(hidden=4096, layers=32, heads=32, intermediate=11_008)
quick = settings(max_examples=60)
WORK = Work(sequences=256, candidates=256)


def model(name: str, shape: Shape, dtype: str = "bfloat16", context: int | None = None) -> Model:
    return Model(name, shape, dtype, shape.parameters * BYTES[dtype], context or shape.context)


def three(shape: Shape, dtype: str = "bfloat16", context: int | None = None, graphs: bool = False) -> Models:
    rm = replace(shape, is_reward_model=True)
    policy, safety, helpfulness = (
        model(name, own, dtype, context) for name, own in (("policy", shape), ("safety", rm), ("helpfulness", rm))
    )
    return replace(policy, has_graphs=graphs), safety, helpfulness


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
contexts = st.none() | st.integers(128, 16_384)
works = st.builds(
    Work,
    st.integers(1, 1_024),
    st.integers(1, 4_096),
)
sizes = st.floats(4, 200)


def planned(
    memory: Memory, shape: Shape, work: Work, context: int | None = None, graphs: bool = False
) -> MemoryPlan | None:
    try:
        return plan_card(memory, three(shape, context=context, graphs=graphs), work)
    except DoesNotFit:
        return None


@quick
@given(sizes, st.floats(0, 0.5), shapes, works, contexts, st.booleans())
def test_every_planned_engine_can_be_started(
    gib: float, taken: float, shape: Shape, work: Work, context: int | None, graphs: bool
) -> None:
    """As vLLM checks it: an engine's share of the total is free at its start, its own CUDA context taken."""
    memory = card(gib, taken * gib)
    plan = planned(memory, shape, work, context, graphs)
    if plan is None:
        return
    free = float(memory.free)
    for engine in (plan.engine("safety"), plan.engine("helpfulness"), plan.policy):
        assert engine.share * memory.total <= free - CUDA_CONTEXT
        assert engine.held <= engine.share * memory.total + engine.uncounted + 1
        free -= engine.claimed
        assert engine.candidates(engine.context) >= 1
    assert free >= 0.0199 * memory.total


CONTEXT_SEEN, GRAPHS_SEEN = 0.55 * GIB, 1.2 * GIB / 32
"""Largest reported for vLLM: a process's CUDA context, and the CUDA graphs of one layer; it counts neither."""


def seen_peak(engine: EnginePlan) -> float:
    """Return what an engine takes of a card: vLLM fills its share, and has its context and graphs beside it."""
    graphs = GRAPHS_SEEN * engine.model.shape.layers if engine.model.has_graphs else 0
    return engine.share * engine.memory.total + CONTEXT_SEEN + graphs


SHAPES = {
    "1.1B": Shape(2048, 22, 32, 4, 64, 5632, 32_000, 2048),
    "3B": Shape.llama2(3200, 26, 32, 8640, context=2048),
    "7B": LLAMA_2_7B,
    "13B": Shape.llama2(hidden=5120, layers=40, heads=40, intermediate=13_824),
}


@pytest.mark.parametrize(
    ("gib", "shape"), [(23.6, "1.1B"), (39.5, "3B"), (79.6, "7B"), (79.6, "1.1B"), (139.8, "7B"), (139.8, "13B")]
)
@pytest.mark.parametrize("graphs", [False, True])
def test_engines_leave_two_percent_of_a_card_at_their_measured_peaks(gib: float, shape: str, graphs: bool) -> None:
    plan = plan_card(card(gib), three(SHAPES[shape], graphs=graphs), WORK)
    left = plan.memory.free - sum(map(seen_peak, plan.engines))
    assert left >= 0.02 * plan.memory.total


def test_a_policy_takes_no_more_than_it_can_use() -> None:
    """The demo models got 1.9 million blocks of an 80 GiB card."""
    small = SHAPES["1.1B"]
    plan = plan_card(card(139.8), three(small), Work(sequences=16, candidates=16))
    assert plan.policy.tokens == 16 * small.context + 16
    assert plan.memory.free - plan.needed > 100 * GIB


@quick
@given(sizes, shapes, works, contexts, st.floats(-0.05, 0.05))
def test_the_policy_is_planned_anew_from_what_the_reward_models_have_left(
    gib: float, shape: Shape, work: Work, context: int | None, error: float
) -> None:
    """`error` is the share of the card by which the reward models' estimates were wrong."""
    plan = planned(card(gib), shape, work, context, graphs=True)
    if plan is None:
        return
    free = (
        plan.memory.free
        - plan.engine("safety").claimed
        - plan.engine("helpfulness").claimed
        - error * plan.memory.total
    )
    left = replace(plan.memory, free=int(free))
    try:
        policy = plan_policy(left, plan.policy.model, work)
    except DoesNotFit:
        assert error > 0
        return
    assert policy.claimed <= left.free - plan.margin + 2
    assert policy.kv_cache <= useful_kv_cache(policy.model, work, 16)
    if error <= 0:
        assert policy.kv_cache >= plan.policy.kv_cache - 4


def test_a_policys_fixed_cache_is_kept_beside_running_reward_models() -> None:
    policy, *_ = three(LLAMA_2_7B)
    assert plan_policy(card(79.6, taken=34), policy, WORK, Fixed(kv_cache=4 * GIB)).kv_cache == 4 * GIB
    with pytest.raises(DoesNotFit, match="with the reward models running, the card has"):
        plan_policy(card(79.6, taken=74), policy, WORK)
    with pytest.raises(DoesNotFit, match=r"would help: a smaller kv_cache_gib, a smaller rm_kv_cache_gib or rm_memory"):
        plan_policy(card(79.6, taken=34), policy, WORK, Fixed(kv_cache=40 * GIB))


@quick
@given(sizes, st.floats(0, 40), shapes, works, contexts)
def test_more_memory_never_gives_less(gib: float, more: float, shape: Shape, work: Work, context: int | None) -> None:
    small, large = (planned(card(size), shape, work, context) for size in (gib, gib + more))
    if small is None:
        return
    assert large is not None
    for less, bigger in zip(small.engines, large.engines, strict=True):
        assert less.kv_cache <= bigger.kv_cache + 4  # bytes, rounded


@quick
@given(sizes, shapes, works, contexts)
def test_the_policy_gets_what_the_reward_models_do_not_need(
    gib: float, shape: Shape, work: Work, context: int | None
) -> None:
    plan = planned(card(gib), shape, work, context)
    if plan is not None:
        is_full = plan.memory.free - plan.needed <= 4
        assert is_full or plan.policy.kv_cache == useful_kv_cache(plan.policy.model, work, 16)
        assert (
            plan.engine("safety").kv_cache == plan.engine("helpfulness").kv_cache <= plan.policy.kv_cache * 1.01 + GIB
        )


@pytest.mark.parametrize(("gib", "policy_tokens"), [(139.8, 160_000), (79.6, 40_000)])
def test_three_7b_models_on_a_data_centre_card(gib: float, policy_tokens: int) -> None:
    plan = plan_card(card(gib), three(LLAMA_2_7B), WORK)
    assert plan.policy.tokens > policy_tokens
    assert plan.engine("safety").tokens == plan.engine("helpfulness").tokens == 12_288
    assert plan.policy.candidates(512) > 80


def test_each_engine_has_its_own_context() -> None:
    policy, safety, helpfulness = three(LLAMA_2_7B)
    long, short = (
        plan_card(card(79.6), (policy, safety, helpfulness), WORK),
        plan_card(card(79.6), (policy, replace(safety, context=1024), helpfulness), WORK),
    )
    assert [engine.context for engine in short.engines] == [4096, 1024, 4096]
    assert short.engine("safety").kv_cache < long.engine("safety").kv_cache
    assert short.policy.kv_cache > long.policy.kv_cache


def test_a_plan_that_does_not_fit_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(DoesNotFit) as caught:
        plan_card(card(24, taken=0.6), three(LLAMA_2_7B, "float32"), WORK)
    headline, *engines, kept, remedies = str(caught.value).splitlines()
    assert "need 94." in headline
    assert "the card has 24.0 GiB (23.4 GiB free)" in headline
    assert [line.split(":")[0].strip() for line in engines] == ["policy", "safety", "helpfulness"]
    assert "25.1 GiB weights (float32) + 2.5 GiB overhead + 4.0 GiB KV cache (4,112 tokens) = 31.6 GiB" in engines[0]
    assert "kept free" in kept
    assert "--dtype auto, half" in remedies, "a card may lack bfloat16"
    assert "smaller models, or a card with 96 GiB free" in remedies
    assert plan_card(card(96), three(LLAMA_2_7B, "float32"), WORK), "a larger card keeps more free"
    with pytest.raises(DoesNotFit):
        plan_card(card(95), three(LLAMA_2_7B, "float32"), WORK)


def test_a_shorter_context_helps_where_it_does() -> None:
    with pytest.raises(DoesNotFit, match=r"--context (\d+)") as caught:
        plan_card(card(48), three(LLAMA_2_7B), WORK)
    context = int(str(caught.value).split("--context ")[1].split(",")[0])
    assert plan_card(card(48), three(LLAMA_2_7B, context=context), WORK)


def test_a_context_that_is_longer_for_one_engine_is_no_help() -> None:
    """Beside a policy of 131,072 tokens, reward models of 8,192 were told to take "--context 67456" as well."""
    shape = Shape(4096, 32, 32, 8, 128, 14_336, 128_256, 131_072)
    policy, safety, helpfulness = three(shape)
    models = (policy, replace(safety, context=8192), replace(helpfulness, context=8192))
    with pytest.raises(DoesNotFit, match=r"--context (\d+)") as caught:
        plan_card(card(79.6), models, WORK)
    context = int(str(caught.value).split("--context ")[1].split(",")[0])
    assert context <= 8192
    policy, safety, helpfulness = three(shape, context=context)
    assert plan_card(card(79.6), (policy, safety, helpfulness), WORK)


def fixed(policy: Fixed = NOT_FIXED, rm: Fixed = NOT_FIXED) -> tuple[Fixed, Fixed, Fixed]:
    return policy, rm, rm


def test_the_operators_sizes_are_kept() -> None:
    plan = plan_card(card(139.8), three(LLAMA_2_7B), WORK, fixed(Fixed(share=0.5), Fixed(kv_cache=4 * GIB)))
    assert plan.policy.share == 0.5
    assert plan.policy.held - CUDA_CONTEXT == pytest.approx(0.5 * 139.8 * GIB)
    assert plan.engine("safety").kv_cache == plan.engine("helpfulness").kv_cache == 4 * GIB
    with pytest.raises(DoesNotFit, match="the three engines need"):
        plan_card(card(139.8), three(LLAMA_2_7B), WORK, fixed(Fixed(share=0.9)))
    with pytest.raises(DoesNotFit, match=r"policy\.memory \(policy_memory\) 0\.1 is 8\.0 GiB, too little"):
        plan_card(card(80), three(LLAMA_2_7B), WORK, fixed(Fixed(share=0.1)))
    with pytest.raises(
        DoesNotFit, match=r"safety\.kv_cache_gib \(rm_kv_cache_gib\) is 1\.0, too little for one sequence of 4,096"
    ):
        plan_card(card(80), three(LLAMA_2_7B), WORK, fixed(rm=Fixed(kv_cache=GIB)))


def test_sizes_of_the_operators_that_do_not_fit_are_what_would_help() -> None:
    """Shares of 1.5 cards were told to want smaller models, or a card with so many GiB."""
    with pytest.raises(DoesNotFit) as shares:
        plan_card(card(80), three(LLAMA_2_7B), WORK, fixed(Fixed(share=0.9), Fixed(share=0.3)))
    assert str(shares.value).endswith("what would help: a smaller policy_memory or rm_memory, smaller models")
    for plan in (plan_card, plan_ram):
        with pytest.raises(DoesNotFit, match=r"help: .*a smaller kv_cache_gib or rm_kv_cache_gib"):
            plan(card(80), three(LLAMA_2_7B), WORK, fixed(Fixed(kv_cache=100 * GIB)))
    with pytest.raises(DoesNotFit) as nothing_fixed:
        plan_card(card(24), three(LLAMA_2_7B), WORK)
    assert "kv_cache_gib" not in str(nothing_fixed.value)


def test_one_reward_model_alone_can_be_fixed() -> None:
    free = plan_card(card(79.6), three(LLAMA_2_7B), WORK)
    plan = plan_card(card(79.6), three(LLAMA_2_7B), WORK, (NOT_FIXED, Fixed(kv_cache=4 * GIB), NOT_FIXED))
    assert plan.engine("safety").kv_cache == 4 * GIB
    assert plan.engine("helpfulness") == free.engine("helpfulness")
    with pytest.raises(DoesNotFit, match=r"helpfulness\.memory \(rm_memory\) 0\.1 is 8\.0 GiB, too little"):
        plan_card(card(80), three(LLAMA_2_7B), WORK, (NOT_FIXED, NOT_FIXED, Fixed(share=0.1)))


def machine(total: float, free: float | None = None) -> Memory:
    return Memory("this machine", int(total * GIB), int((total if free is None else free) * GIB))


def demos(context: int | None = None) -> Models:
    return (
        describe(str(demo.weights("policy")), "policy", "policy", "float32", context),
        describe(str(demo.weights("safety-rm")), "reward model", "safety", "float32", context),
        describe(str(demo.weights("helpfulness-rm")), "reward model", "helpfulness", "float32", context),
    )


@quick
@given(shapes, works, contexts, st.sampled_from([16, CPU_BLOCK]))
def test_a_useful_cache_holds_what_an_engine_can_have_at_once_and_no_more(
    shape: Shape, work: Work, context: int | None, block: int
) -> None:
    for engine in three(shape, context=context):
        tokens = useful_kv_cache(engine, work, block) / engine.kv_per_token
        assert tokens % block == 0
        full = work.sequences * (engine.context + block - 1) + block
        assert engine.context + block <= tokens <= full
        if engine.name == "policy":
            assert tokens >= work.sequences * engine.context + block
        elif tokens < work.sequences * engine.context:
            # One step's tokens, each answer in a block of its own.
            assert tokens >= max(BATCHED_TOKENS, engine.context) + work.sequences * block


def test_a_demo_engine_takes_no_cache_that_it_cannot_use() -> None:
    """Each asked for 1 GiB and filled it with zeros, so that three tiny models needed 4.5 GiB."""
    bytes_a_token = 2 * 4 * 5 * 32 * 4
    few = plan_ram(machine(16), demos(256), Work(sequences=8, candidates=8))
    assert [engine.tokens for engine in few.engines] == [(8 * 2 + 1) * 128, *[(8 * 8 + 1) * 32] * 2]
    assert few.policy.kv_cache == few.policy.tokens * bytes_a_token
    usual = plan_ram(machine(16), demos(), WORK)
    assert usual.policy.tokens == 256 * 256 + 256 // PROMPT_SHARERS * 256 + 128, (
        "its share of 32 prompts, and an answer"
    )
    assert usual.engine("safety").kv_cache == usual.engine("helpfulness").kv_cache < GIB / 10
    assert usual.needed < 2.2 * GIB


def test_a_policy_whose_typical_candidates_need_more_than_a_gib_gets_that() -> None:
    """A model of 135 million parameters takes 46 KiB a token: 256 candidates would take 3.3 GiB."""
    policy = three(Shape(576, 30, 9, 3, 64, 1536, 49_152, 2048), "float32")[0]
    assert 0.99 * GIB < plan_ram(machine(16), [policy], WORK).policy.kv_cache <= GIB


@quick
@given(shapes, works, st.floats(1, 64), st.floats(0, 64))
def test_engines_fit_the_free_memory_or_hold_one_sequence(shape: Shape, work: Work, total: float, taken: float) -> None:
    models, memory = three(shape, "float32"), machine(total, max(0.0, total - taken))
    try:
        plan = plan_ram(memory, models, work)
    except DoesNotFit:
        assert sum(m.weights + CPU_PROCESS + (m.context + 2 * CPU_BLOCK) * m.kv_per_token for m in models) > min(
            memory.total, memory.free + 3 * CPU_PROCESS
        )
        return
    assert plan.needed <= memory.total
    for engine in plan.engines:
        is_policy = engine.model.name == "policy"
        block = (CPU_BLOCK if is_policy else CPU_SCORING_BLOCK) * engine.model.kv_per_token
        assert engine.kv_cache % block == 0
        assert engine.kv_cache - block >= engine.context * engine.model.kv_per_token
        assert engine.kv_cache <= max(CPU_KV_CACHE, (engine.context + 2 * CPU_BLOCK) * engine.model.kv_per_token)
    if plan.needed > memory.free:
        assert all(engine.kv_cache < (engine.context + 2 * CPU_BLOCK) * engine.model.kv_per_token
                   for engine in plan.engines)  # fmt: skip


def test_a_small_machine_gets_small_caches() -> None:
    plan = plan_ram(machine(3, 2), demos(), WORK)
    assert plan.needed <= 2 * GIB
    assert plan.policy.tokens > 10 * 2048
    fixed_policy = plan_ram(machine(4, 1.5), demos(), WORK, (Fixed(kv_cache=GIB), NOT_FIXED, NOT_FIXED))
    assert fixed_policy.policy.kv_cache == GIB


def test_a_machine_that_can_never_hold_the_engines_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(DoesNotFit, match=r"need 1\.5 GiB at least; this machine has 1\.0 GiB"):
        plan_ram(machine(1), demos(), WORK)
    with pytest.raises(DoesNotFit, match=r"--dtype bfloat16, half .* a machine with 89 GiB free"):
        plan_ram(machine(64), three(LLAMA_2_7B, "float32"), WORK)
    with pytest.raises(DoesNotFit, match=r"policy\.kv_cache_gib \(kv_cache_gib\) is 1\.0, too little"):
        plan_ram(machine(256), three(LLAMA_2_7B, "float32"), WORK, fixed(Fixed(kv_cache=GIB)))
