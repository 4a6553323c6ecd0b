"""The benchmark of shapes against a scripted server: its requests and its figures."""

from __future__ import annotations

import json
import math
import random

import pytest

from tests.fakes import ScriptedRewardModel
from tests.live import ScriptedServer, scripted
from winnow.loadtests.benchmarks.shape_bench import Failed, Load, arguments, number_bytes, plain_words, run, show
from winnow.models import demo
from winnow.models.engines.roofline import H200, Machine
from winnow.models.tokenizer import Tokenizer

DEMO_TOKENIZER = demo.weights("policy")


def test_the_words_are_encoded_as_they_were_decoded(tokenizer: Tokenizer) -> None:
    """Otherwise the reward models would read another length than was sampled."""
    words = plain_words(DEMO_TOKENIZER)
    ids = random.Random(0).choices(words, k=200)
    text = tokenizer.decode(ids)
    assert len(words) == len(set(words)) == 64
    assert tokenizer.encode_continuation(f" {text.strip()}") == ids


def test_prompts_have_their_length_and_share_nothing() -> None:
    load = Load(plain_words(DEMO_TOKENIZER), 256, 128, is_spread=False)
    rng = random.Random(0)
    bodies = [load.body(4, rng) for _ in range(3)]
    assert {len(body["prompt"]) for body in bodies} == {256}
    assert len({tuple(body["prompt"][:16]) for body in bodies}) == 3
    assert all(body["logit_bias"]["2"] == -100 and body["max_tokens"] == 128 for body in bodies)


@pytest.mark.parametrize("tokens", [64, 256, 1000])
def test_spread_answers_end_by_chance_around_their_length(tokens: int) -> None:
    words = plain_words(DEMO_TOKENIZER)
    bias = Load(words, 8, tokens, is_spread=True).body(1, random.Random(0))["logit_bias"]
    ending = math.exp(bias.pop("2") - 100)
    assert ending / (ending + len(bias)) == pytest.approx(1 / tokens, rel=0.02)
    assert max(bias.values()) <= 100


FLAGS = ("--shape", "tiny", "-k", "1,3", "--requests", "2", "--clients", "2", "--seconds", "0.3", "--out", "x.json")


async def test_a_run_against_a_server(tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments([*FLAGS, "--saturation-k", "2", "--", "--compile"])
    assert given.flags == ["--compile"]
    with ScriptedServer.start(scripted(tokenizer, served_model_name="policy")) as server:
        report = await run(server.url, given, H200, 2)
    assert [row["candidates"] for row in report["latency"]] == [1, 3]
    for row in report["latency"]:
        assert row["requests"] == 2
        assert row["tokens"] == 2 * row["candidates"]
        assert row["ratio"] == pytest.approx(row["p50_ms"] / row["floor_ms"], rel=0.5)
        assert row["ratio_tied"] <= row["ratio"]
    assert report["saturation"]["requests"] > 0
    assert json.loads(json.dumps(report)) == report
    show(report)
    assert "H200" in capsys.readouterr().out


async def test_a_candidate_without_a_score_ends_the_run(tokenizer: Tokenizer) -> None:
    """Random weights could give NaN, and a benchmark of failures would look fast."""
    broken = ScriptedRewardModel(logit=lambda ids: math.nan if ids[-1] else 0.0)
    service = scripted(tokenizer, served_model_name="policy", safety=broken)
    with ScriptedServer.start(service) as server, pytest.raises(Failed, match="candidates failed"):
        await run(server.url, arguments([*FLAGS, "-k", "3"]), H200, 2)


@pytest.mark.parametrize(
    ("machine", "flags", "width"),
    [("CPU, 2 threads", [], 4), ("CPU", ["--dtype", "bfloat16"], 2), ("H200", [], 2), ("H200", ["--dtype=float32"], 4)],
)
def test_the_roofline_is_that_of_the_servers_precision(machine: str, flags: list[str], width: int) -> None:
    assert number_bytes(Machine(machine, 1.0, 1.0), flags) == width
