"""`python -m winnow.loadtests.benchmarks.shape_bench`: how near the floor a server of a known shape comes, without its weights.

Speed depends on a model's shape and not on what it has learnt, so three models of random weights are served, prompts are token ids of
an exact length, and answers are forced to theirs. For each K: latencies, one request at a time, beside the floor of the lengths that came;
then requests a second with many clients. Answers mean nothing; whether the scores are sound is not asked here.

Answers are forced to words that the tokenizer spells as it reads them, or the reward models would read something shorter or longer than
was sampled. Lengths: `fixed` makes all K of the same one, so that all K are scored after the last step, the worst case; `spread` lets each
end by chance, on average after so many tokens, and at twice as many at the latest.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from winnow.loadtests.benchmarks.bandwidth import measure_apart
from winnow.loadtests.benchmarks.roofline import Floor, Machine, floor
from winnow.loadtests.benchmarks.shape_server import DEMO_TOKENIZER, served
from winnow.loadtests.benchmarks.shapes import EOS, SHAPES, Shape

WORDS = 64
"""Different words in prompts and answers."""
REQUEST_SECONDS = 600.0
WARM_UP_SHARE = 0.25
"""Part of a saturation run that is not counted."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What a request asks for: tokens of the prompt and of an answer, and whether answers end by chance around that length."""

    words: tuple[int, ...]
    prompt_tokens: int
    answer_tokens: int
    is_spread: bool

    def body(self, candidates: int, rng: random.Random) -> dict[str, Any]:
        """A request's body, with a prompt of its own: no two requests share a prefix."""
        # Among words that are equally likely, EOS comes with probability 1 / answer_tokens, or never.
        ending = 100 - math.log(max(1.0, self.answer_tokens / len(self.words))) if self.is_spread else -100.0
        return {
            "model": "policy",
            "prompt": [1, *rng.choices(self.words, k=self.prompt_tokens - 1)],
            "max_tokens": self.answer_tokens * (2 if self.is_spread else 1),
            "temperature": 1.0,
            "top_p": 1.0,
            "logit_bias": {**dict.fromkeys(map(str, self.words), 100.0), str(EOS): ending},
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
    """Requests of one K, one at a time, each beside its own floor."""

    candidates: int
    answers: tuple[Answer, ...]
    floors: tuple[Floor, ...]

    @property
    def report(self) -> dict[str, Any]:
        """Medians in milliseconds; a ratio is the time taken over the floor, of each request."""
        pairs = list(zip(self.answers, self.floors, strict=True))
        return {
            "candidates": self.candidates,
            "requests": len(pairs),
            "tokens": statistics.median(sum(answer.lengths) for answer, _ in pairs),
            "p50_ms": 1e3 * statistics.median(answer.seconds for answer, _ in pairs),
            "score_tail_ms": 1e3 * statistics.median(answer.score_tail for answer, _ in pairs),
            "floor_ms": 1e3 * statistics.median(least.seconds for _, least in pairs),
            "floor_tied_ms": 1e3 * statistics.median(least.seconds_tied for _, least in pairs),
            "ratio": statistics.median(answer.seconds / least.seconds for answer, least in pairs),
            "ratio_tied": statistics.median(answer.seconds / least.seconds_tied for answer, least in pairs),
        }


class Failed(Exception):
    """A request was not answered in full; the message says what came."""


async def ask(http: httpx.AsyncClient, body: dict[str, Any]) -> Answer:
    """Send one request and take its whole answer.

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
    http: httpx.AsyncClient, asking: Asking, candidates: int, requests: int, shape: Shape, machine: Machine, width: int
) -> Latency:
    """Ask one request after another, and one before them that is not counted."""
    rng = random.Random(candidates)
    answers = [await ask(http, asking.body(candidates, rng)) for _ in range(requests + 1)][1:]
    floors = [floor(asking.prompt_tokens, a.lengths, shape, [shape, shape], machine, width) for a in answers]
    return Latency(candidates, tuple(answers), tuple(floors))


async def saturation(
    http: httpx.AsyncClient, asking: Asking, candidates: int, clients: int, seconds: float
) -> dict[str, Any]:
    """Requests a second with `clients` that each ask again as soon as they are answered; the beginning is not counted."""
    started = time.perf_counter()
    ended = started + seconds
    counted = started + seconds * WARM_UP_SHARE
    done: list[tuple[float, Answer]] = []

    async def client(number: int) -> None:
        rng = random.Random(1_000 + number)
        while time.perf_counter() < ended:
            answer = await ask(http, asking.body(candidates, rng))
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
        "p50_ms": 1e3 * statistics.median(answer.seconds for answer in within) if within else None,
    }


def plain_words(tokenizer: Path) -> tuple[int, ...]:
    """Ids of whole words of letters: a row of them is spelt as it is read."""
    vocabulary: dict[str, int] = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))["model"][
        "vocab"
    ]
    words = sorted(
        (
            token
            for piece, token in vocabulary.items()
            if len(piece) > 3 and piece[0] == "▁" and piece[1:].isascii() and piece[1:].isalpha()
        ),
    )
    return tuple(words[:WORDS])


async def _spelt(http: httpx.AsyncClient, text: str) -> int:
    """Tokens of `text` as the reward models read it."""
    response = await http.post("/tokenize", json={"prompt": text, "add_special_tokens": False})
    return int(response.json()["count"])


async def run(url: str, given: argparse.Namespace, machine: Machine, width: int) -> dict[str, Any]:
    """Measure the server at `url`."""
    shape: Shape = SHAPES[given.shape]
    asking = Asking(plain_words(given.tokenizer), given.prompt_tokens, given.answer_tokens, given.lengths == "spread")
    limits = httpx.Limits(max_connections=given.clients + 1)
    latencies = []
    async with httpx.AsyncClient(base_url=url, timeout=REQUEST_SECONDS, trust_env=False, limits=limits) as http:
        for candidates in given.k:
            measured = await latency(http, asking, candidates, given.requests, shape, machine, width)
            latencies.append(measured)
            print(_line(measured.report), flush=True)
        text = max((answer.text for answer in latencies[0].answers), key=len)
        spelt = await _spelt(http, text)
        full = (
            await saturation(http, asking, given.saturation_k, given.clients, given.seconds) if given.clients else None
        )
    return {
        "shape": given.shape,
        "machine": dataclasses.asdict(machine),
        "prompt_tokens": given.prompt_tokens,
        "answer_tokens": given.answer_tokens,
        "lengths": given.lengths,
        "server_flags": given.flags,
        "spelt_tokens": {"sampled": max(max(answer.lengths) for answer in latencies[0].answers), "scored": spelt},
        "latency": [measured.report for measured in latencies],
        "saturation": full,
    }


def _line(report: dict[str, Any]) -> str:
    return f"K = {report['candidates']}: {report['p50_ms']:,.0f} ms, floor {report['floor_ms']:,.0f} ms, ratio {report['ratio']:.2f}"


def show(report: dict[str, Any]) -> None:
    """Print what was measured."""
    machine = Machine(**report["machine"])
    table = Table(
        title=f"{report['shape']} on {machine.name}: {report['prompt_tokens']} + {report['answer_tokens']} tokens, {report['lengths']}",
        caption=f"measured {machine.bandwidth / 1e9:,.0f} GB/s, {machine.flops / 1e12:,.2f} TFLOP/s; tied: scoring all that end last",
    )
    for heading in ("K", "p50 ms", "score tail ms", "floor ms", "ratio", "floor tied ms", "ratio tied"):
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
    """Read the command line; what follows `--` goes to `winnow serve`."""
    parser = argparse.ArgumentParser(
        description="How near the floor a server of a known shape comes, without its weights."
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
    parser.add_argument("--tokenizer", type=Path, default=DEMO_TOKENIZER, help="checkpoint whose tokenizer is used")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; the server's log goes beside it")
    parser.add_argument("flags", nargs="*", help="after --: flags of winnow serve, such as --no-eager")
    return parser.parse_args(argv)


def number_bytes(machine: Machine, flags: Sequence[str]) -> int:
    """Bytes of a number as the server computes: float32 on CPU and bfloat16 on a card, unless its flags say otherwise."""
    named = [dtype for dtype in ("float32", "bfloat16", "float16") if any(flag.endswith(dtype) for flag in flags)]
    dtype = named[0] if named else "float32" if machine.name.startswith("CPU") else "bfloat16"
    return 4 if dtype == "float32" else 2


def main() -> None:
    """Measure the machine, start the server, measure it, and write the file."""
    given = arguments()
    machine = measure_apart()
    print(f"{machine.name}: {machine.bandwidth / 1e9:,.0f} GB/s, {machine.flops / 1e12:,.2f} TFLOP/s", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="winnow-shape-") as folder,
        served(SHAPES[given.shape], Path(folder), given.out.with_suffix(".log"), given.tokenizer, given.flags) as url,
    ):
        report = asyncio.run(run(url, given, machine, number_bytes(machine, given.flags)))
    given.out.write_text(json.dumps(report, indent=2), encoding="utf-8")
    show(report)


if __name__ == "__main__":
    main()
