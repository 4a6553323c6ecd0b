"""A program for `test_vllm_process`: owns one engine process until it is killed; arguments are METHOD and JSON facts.

Facts: `on_gpu`, `scores`, `bad_fork` (what torch says of CUDA in the child), and `orphaned`: the child reads what it
should do only once its owner is gone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from types import SimpleNamespace

METHOD, FACTS = sys.argv[1], json.loads(sys.argv[2])

if __name__ == "__mp_main__":  # a spawned child, before it reads its target
    owner = os.getppid()
    print("born", os.getpid(), flush=True)
    while FACTS["orphaned"] and os.getppid() == owner:
        time.sleep(0.01)

if __name__ == "__main__":
    from vllm.v1.engine.core import EngineCoreProc

    from winnow.models.engines.process import Attachment
    from winnow.models.engines.vllm_process import attached

    sys.modules["torch"] = SimpleNamespace(cuda=SimpleNamespace(_is_in_bad_fork=lambda: FACTS["bad_fork"]))  # type: ignore[assignment]
    with attached(Attachment.to_this_process(on_gpu=FACTS["on_gpu"], scores=FACTS["scores"])):
        child = multiprocessing.get_context(METHOD).Process(target=EngineCoreProc.run_engine_core, args=("hello",))
        child.start()
    child.join()
    print("ended", child.exitcode, flush=True)
