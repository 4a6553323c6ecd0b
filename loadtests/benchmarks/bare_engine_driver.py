"""Samples with the bare policy engine, and prints the seconds and the sampled tokens as a line of JSON.

The bare side of `winnow.loadtests.benchmarks.distill_throughput`, which runs it as a process. All candidates
are submitted at once, with the seeds that `winnow distill` with the run seed 0 gives them. They are not decoded
to text, scored or stored.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

from winnow.models import demo
from winnow.models.chat_templates import TEMPLATES
from winnow.models.engines.base import EngineOptions
from winnow.models.engines.checkpoint import load_tokenizer
from winnow.models.engines.environment import prepare, runs_on_gpu
from winnow.models.sampling import Sampling, derived_seed

CPU_KV_CACHE = 2**30
"""Bytes; the default of `winnow distill`."""
GPU_SHARE = 0.8
RUN_SEED = 0


def options(checkpoint: str) -> EngineOptions:
    """Return the start options that `winnow distill` gives its policy, except for the share of a GPU."""
    on_gpu = runs_on_gpu()
    return EngineOptions(
        name="policy",
        checkpoint=checkpoint,
        dtype="bfloat16" if on_gpu else "float32",
        context=None,
        kv_cache=None if on_gpu else CPU_KV_CACHE,
        memory_share=GPU_SHARE if on_gpu else None,
        max_sequences=256,
        execution="eager",
        load_format="auto",
        on_gpu=on_gpu,
        fork=True,
    )


def main() -> None:
    """Start the engine, warm it up with one other prompt, sample once, and print the outcome."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("prompts", type=Path, help="input file of winnow distill")
    parser.add_argument("--candidates", type=int, required=True)
    parser.add_argument("--max-tokens", type=int, required=True)
    given = parser.parse_args()
    prepare(offline=True, compiled=False)
    checkpoint, template = str(demo.weights("policy")), TEMPLATES["llama2"]
    tokenizer = load_tokenizer(checkpoint, "policy")
    dialogs = [json.loads(line)["messages"] for line in given.prompts.read_text(encoding="utf-8").splitlines()]
    prompts = [template.render(dialog, tokenizer) for dialog in dialogs]
    warm_up = template.render([{"role": "user", "content": "Hello"}], tokenizer)

    from winnow.models.engines.vllm import start_policy  # reads the environment that has just been prepared

    policy = start_policy(options(checkpoint), tokenizer)

    async def seconds_and_tokens() -> tuple[float, int]:
        await policy.generate(warm_up, Sampling(max_tokens=8), 0)
        started = time.perf_counter()
        outputs = await asyncio.gather(
            *(
                policy.generate(prompt, sampling(line, given.max_tokens), index)
                for line, prompt in enumerate(prompts, start=1)
                for index in range(given.candidates)
            )
        )
        return time.perf_counter() - started, sum(len(output.token_ids) for output in outputs)

    try:
        seconds, tokens = asyncio.run(seconds_and_tokens())
    finally:
        policy.shutdown()
    print(json.dumps({"seconds": seconds, "tokens": tokens}))


def sampling(line: int, max_tokens: int) -> Sampling:
    """Return the sampling parameters of input line `line`, from 1, with the seed that `winnow distill` derives."""
    return Sampling(max_tokens=max_tokens, temperature=1.0, seed=derived_seed(RUN_SEED, line, 0))


if __name__ == "__main__":
    main()
