"""A whole service whose safety model is an encoder in the server's process, beside two engines."""

from __future__ import annotations

import concurrent.futures
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import LiveServer, question
from tests.models.engines import tiny_encoders

pytestmark = pytest.mark.engine
SMALL = ("--kv-cache-gib", "0.4", "--rm-kv-cache-gib", "0.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that reads the answer alone, so that its scores do not depend on the policy's template."""
    made = tiny_encoders.encoder(tmp_path_factory.mktemp("encoders") / "mine", "roberta", ("neutral", "toxic"))
    return tiny_encoders.card(made, 'adapter = "encoder"\nreads = "answer"\nlabels = ["neutral", "toxic"]\n')


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    # Random weights rank nothing, so the sanity check would refuse them.
    with LiveServer.start("--safety-rm", str(folder), "--no-canary", *SMALL) as running:
        yield running


def test_two_engines_have_processes_and_the_encoder_has_none(server: LiveServer) -> None:
    assert len(server.engine_pids) == 2
    with server.http as http:
        version = http.get("/version").json()
        assert http.get("/ready").status_code == 200
    assert version["combiner"] == "safe_first"
    assert version["calibrated"] == {"safety": False, "helpfulness": True}


def test_answers_are_chosen_by_both_models_also_under_load(server: LiveServer) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        options = {"best_of_n": {"candidates": 4}, "max_tokens": 24}
        answers = list(pool.map(lambda seed: server.chat(seed=seed, **options), range(8)))
    for answer in answers:
        assert answer.status_code == 200, answer.text
        scored = answer.json()["best_of_n"]["scored"]
        assert len(scored) == 4
        assert all(0 < item["safety"] < 1 for item in scored)
    repeated = server.chat(seed=0, **options).json()
    assert repeated["choices"][0]["message"] == answers[0].json()["choices"][0]["message"]


def test_given_answers_get_the_logits_of_the_checkpoint(server: LiveServer, folder: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    answers = ["The capital of France is Paris.", "I don't care. Go away.", "x"]
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with server.http as http, torch.inference_mode():
        body = {"model": "winnow-demo", "messages": question("[SEP] </s>")["messages"], "answers": answers}
        rewards = http.post("/v1/rewards", json=body).json()["rewards"]
        for reward, answer in zip(rewards, answers, strict=True):
            neutral, toxic = model(**tokenizer(answer, return_tensors="pt")).logits[0].tolist()
            assert reward["safety"] == pytest.approx(1 / (1 + math.exp(toxic - neutral)), abs=1e-3)


def test_an_answer_beyond_the_context_is_refused(server: LiveServer) -> None:
    with server.http as http:
        body = {"model": "winnow-demo", "messages": question()["messages"], "answers": ["7 " * 600, "Paris."]}
        answer = http.post("/v1/rewards", json=body)
    assert answer.status_code == 400
    assert "tokens for the safety model, whose context holds 512" in answer.text
