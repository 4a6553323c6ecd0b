"""`python -m winnow.loadtests.benchmarks.shape_bench`: latency of a known shape against its roofline.

Speed depends on a model's shape and not on its weights. So three models of random weights are served, prompts
are token ids of an exact length, and answers are forced to theirs. For each K: latencies, one request at a
time, beside the roofline of the lengths observed; then requests a second with many clients. Answers mean
nothing, and the scores are not checked.

Answers are forced to words that the tokenizer encodes as it decoded them, or the reward models would read
another length than was sampled. Lengths: `fixed` makes all K equally long, so that all K are scored after the
last step, the worst case; `spread` lets each end by chance, on average after the given number of tokens, and at
twice as many at the latest.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import math
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from winnow.loadtests.benchmarks.winnow_process import winnow_server_of_shape
from winnow.models import demo
from winnow.models.engines import mps
from winnow.models.engines.bandwidth import measure_in_child
from winnow.models.engines.dummy_checkpoints import EOS, SHAPES, plain_words
from winnow.models.engines.roofline import Machine, Roofline, roofline
from winnow.models.engines.shape import BYTES
from winnow.models.statistics import median

REQUEST_SECONDS = 600.0
WARM_UP_SHARE = 0.25
"""Part of a saturation run that is not counted."""


@dataclass(frozen=True, slots=True)
class Load:
    """The requests: tokens of the prompt and of an answer, and whether answers end by chance around that length."""

    words: tuple[int, ...]
    prompt_tokens: int
    answer_tokens: int
    is_spread: bool

    def body(self, candidates: int, rng: random.Random) -> dict[str, Any]:
        """Return a request's body, with a prompt of its own: no two requests share a prefix."""
        # Among words that are equally likely, EOS comes with probability 1 / answer_tokens, or never.
        end_bias = 100 - math.log(max(1.0, self.answer_tokens / len(self.words))) if self.is_spread else -100.0
        return {
            "model": "policy",
            "prompt": [1, *rng.choices(self.words, k=self.prompt_tokens - 1)],
            "max_tokens": self.answer_tokens * (2 if self.is_spread else 1),
            "temperature": 1.0,
            "top_p": 1.0,
            "logit_bias": {**dict.fromkeys(map(str, self.words), 100.0), str(EOS): end_bias},
            "best_of_n": {"candidates": candidates},
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered request: seconds as the client saw them, seconds of the score tail, and tokens of each candidate."""

    seconds: float
    score_tail: float
    lengths: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Latency:
    """Requests of one K, one at a time, each beside its own roofline."""

    candidates: int
    answers: tuple[Answer, ...]
    rooflines: tuple[Roofline, ...]

    @property
    def report(self) -> dict[str, Any]:
        """Medians in milliseconds; a ratio is a request's time over its roofline."""
        pairs = list(zip(self.answers, self.rooflines, strict=True))
        return {
            "candidates": self.candidates,
            "requests": len(pairs),
            "tokens": median(sum(answer.lengths) for answer in self.answers),
            "p50_ms": 1e3 * median(answer.seconds for answer in self.answers),
            "score_tail_ms": 1e3 * median(answer.score_tail for answer in self.answers),
            "floor_ms": 1e3 * median(bound.seconds for bound in self.rooflines),
            "floor_tied_ms": 1e3 * median(bound.seconds_tied for bound in self.rooflines),
            "ratio": median(answer.seconds / bound.seconds for answer, bound in pairs),
            "ratio_tied": median(answer.seconds / bound.seconds_tied for answer, bound in pairs),
        }


class Failed(Exception):
    """A request was not answered in full; the message says what the server sent."""


async def post(http: httpx.AsyncClient, body: dict[str, Any]) -> Answer:
    """Send one request and read its whole answer.

    Raises:
        Failed: an error came, or a candidate has no score.
    """
    started = time.perf_counter()
    response = await http.post("/v1/completions", json=body)
    seconds = time.perf_counter() - started
    if response.status_code != httpx.codes.OK:
        raise Failed(f"status {response.status_code}: {response.text[:400]}")
    answer = response.json()
    report = answer["best_of_n"]
    if report["failed"]:
        raise Failed(f"{len(report['failed'])} candidates failed: {report['failed'][0]['reason']}")
    lengths = tuple(scored["tokens"] for scored in report["scored"])
    return Answer(seconds, report["timings_ms"]["score_tail"] / 1e3, lengths, answer["choices"][0]["text"])


async def latency(
    http: httpx.AsyncClient, load: Load, candidates: int, requests: int, bound: Callable[[Answer], Roofline]
) -> Latency:
    """Send one request after another; the first one warms up and is not counted."""
    rng = random.Random(candidates)
    answers = [await post(http, load.body(candidates, rng)) for _ in range(requests + 1)][1:]
    return Latency(candidates, tuple(answers), tuple(map(bound, answers)))


async def saturation(
    http: httpx.AsyncClient, load: Load, candidates: int, clients: int, seconds: float
) -> dict[str, Any]:
    """Measure requests a second of `clients` in a closed loop; the beginning is not counted."""
    started = time.perf_counter()
    ended = started + seconds
    counted = started + seconds * WARM_UP_SHARE
    done: list[tuple[float, Answer]] = []

    async def client(number: int) -> None:
        rng = random.Random(1_000 + number)
        while time.perf_counter() < ended:
            answer = await post(http, load.body(candidates, rng))
            done.append((time.perf_counter(), answer))

    await asyncio.gather(*map(client, range(clients)))
    within = [answer for at, answer in done if counted <= at < ended]
    window = ended - counted
    return {
        "candidates": candidates,
        "clients": clients,
        "seconds": window,
        "requests": len(within),
        "requests_per_second": len(within) / window,
        "tokens_per_second": sum(sum(answer.lengths) for answer in within) / window,
        "p50_ms": 1e3 * median(answer.seconds for answer in within) if within else None,
    }


async def _scored_tokens(http: httpx.AsyncClient, text: str) -> int:
    """Return the tokens of `text` as the reward models read it."""
    response = await http.post("/tokenize", json={"prompt": text, "add_special_tokens": False})
    return int(response.json()["count"])


async def run(url: str, given: argparse.Namespace, machine: Machine, width: int) -> dict[str, Any]:
    """Measure the server at `url`, whose numbers are `width` bytes wide."""
    shape = SHAPES[given.shape]
    load = Load(plain_words(given.tokenizer), given.prompt_tokens, given.answer_tokens, given.lengths == "spread")
    limits = httpx.Limits(max_connections=given.clients + 1)

    def bound(answer: Answer) -> Roofline:
        return roofline(given.prompt_tokens, answer.lengths, shape, [shape, shape], machine, width)

    latencies = []
    async with httpx.AsyncClient(base_url=url, timeout=REQUEST_SECONDS, trust_env=False, limits=limits) as http:
        served = (await http.get("/version")).json()
        for candidates in given.k:
            latencies.append(await latency(http, load, candidates, given.requests, bound))
            print(_line(latencies[-1].report), flush=True)
        text = max((answer.text for answer in latencies[0].answers), key=len)
        scored = await _scored_tokens(http, text)
        full = await saturation(http, load, given.saturation_k, given.clients, given.seconds) if given.clients else None
    return {
        "shape": given.shape,
        "machine": dataclasses.asdict(machine),
        "served_by": served,
        "prompt_tokens": given.prompt_tokens,
        "answer_tokens": given.answer_tokens,
        "lengths": given.lengths,
        "server_flags": given.flags,
        "spelt_tokens": {"sampled": max(max(answer.lengths) for answer in latencies[0].answers), "scored": scored},
        "latency": [measured.report for measured in latencies],
        "saturation": full,
    }


def _line(row: dict[str, Any]) -> str:
    times = f"{row['p50_ms']:,.0f} ms, roofline {row['floor_ms']:,.0f} ms"
    return f"K = {row['candidates']}: {times}, ratio {row['ratio']:.2f}"


def show(report: dict[str, Any]) -> None:
    """Print the figures."""
    machine = Machine(**report["machine"])
    lengths = f"{report['prompt_tokens']} + {report['answer_tokens']} tokens, {report['lengths']}"
    speed = f"{machine.bandwidth / 1e9:,.0f} GB/s, {machine.flops / 1e12:,.2f} TFLOP/s"
    gpu = report["served_by"]["gpu"]
    sharing = f", MPS {mps.WORDS[gpu['mps']]}" if gpu else ""
    table = Table(
        title=f"{report['shape']} on {machine.name}{sharing}: {lengths}",
        caption=f"measured {speed}; tied: all that finish in the last step are scored after it",
    )
    for heading in ("K", "p50 ms", "score tail ms", "roofline ms", "ratio", "roofline tied ms", "ratio tied"):
        table.add_column(heading, justify="right")
    for row in report["latency"]:
        table.add_row(
            str(row["candidates"]),
            *(f"{row[name]:,.0f}" for name in ("p50_ms", "score_tail_ms", "floor_ms")),
            f"{row['ratio']:.2f}",
            f"{row['floor_tied_ms']:,.0f}",
            f"{row['ratio_tied']:.2f}",
        )
    Console().print(table)
    if full := report["saturation"]:
        print(
            f"{full['clients']} clients, K = {full['candidates']}: {full['requests_per_second']:.2f} requests/s, "
            f"{full['tokens_per_second']:,.0f} tokens/s ({full['requests']} requests in {full['seconds']:.0f} s)"
        )


def _counts(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; flags after `--` go to `winnow serve`."""
    parser = argparse.ArgumentParser(
        description="Compare a server of a known shape with its roofline, without its weights."
    )
    parser.add_argument("--shape", choices=SHAPES, default="llama-2-7b")
    parser.add_argument("-k", type=_counts, default=[1, 4, 16, 64], help="candidates, several with commas")
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--answer-tokens", type=int, default=256)
    parser.add_argument("--lengths", choices=("fixed", "spread"), default="fixed")
    parser.add_argument("--requests", type=int, default=5, help="requests of each K, one at a time")
    parser.add_argument("--saturation-k", type=int, default=8)
    parser.add_argument("--clients", type=int, default=32, help="clients of the saturation run; 0 for none")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the saturation run")
    parser.add_argument("--tokenizer", type=Path, default=demo.weights("policy"), help="checkpoint with the tokenizer")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; the server's log goes beside it")
    parser.add_argument("flags", nargs="*", help="after --: flags of winnow serve, such as --compile")
    return parser.parse_args(argv)


def number_bytes(machine: Machine, flags: Sequence[str]) -> int:
    """Return the bytes of a number: float32 on CPU, bfloat16 on a card, or as the server's flags say."""
    named = [dtype for dtype in BYTES if any(flag.endswith(dtype) for flag in flags)]
    return BYTES[named[0] if named else "float32" if machine.name.startswith("CPU") else "bfloat16"]


def main() -> None:
    """Measure the machine, start the server, measure it, and write the file."""
    given = arguments()
    machine = measure_in_child()
    print(f"{machine.name}: {machine.bandwidth / 1e9:,.0f} GB/s, {machine.flops / 1e12:,.2f} TFLOP/s", flush=True)
    shape, log_file = SHAPES[given.shape], given.out.with_suffix(".log")
    with (
        tempfile.TemporaryDirectory(prefix="winnow-shape-") as folder,
        winnow_server_of_shape(shape, Path(folder), log_file, given.tokenizer, given.flags) as url,
    ):
        report = asyncio.run(run(url, given, machine, number_bytes(machine, given.flags)))
    given.out.write_text(json.dumps(report, indent=2), encoding="utf-8")
    show(report)


if __name__ == "__main__":
    main()
