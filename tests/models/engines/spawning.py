"""A program for `test_vllm_process`: starts one real engine, spawned, and owns it until it is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal

from winnow.models import demo
from winnow.models.engines.base import EngineOptions, RewardInput
from winnow.models.engines.environment import START_METHOD, may_fork, prepare


def main() -> None:
    """Print the engine's process id once it runs, and wait."""
    from winnow.models.chat_templates import TEMPLATES
    from winnow.models.engines.checkpoint import load_tokenizer

    checkpoint = str(demo.weights("safety-rm"))
    fork = may_fork()
    prepare(offline=True, compiled=False)
    reward_input = RewardInput(load_tokenizer(checkpoint, "reward model"), TEMPLATES["llama2"])
    from winnow.models.engines.vllm import start_reward_model

    options = EngineOptions("safety", checkpoint, "float32", 256, 2**25, None, 8, "eager", "auto", False, fork)
    engine = start_reward_model(options, reward_input)
    (process,) = multiprocessing.active_children()
    print("runs", process.pid, os.environ[START_METHOD], engine.dtype, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
