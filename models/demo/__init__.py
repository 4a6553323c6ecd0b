"""A small world with checkable answers, and a policy and two reward models trained on it (`weights`).

Neither this package nor `world` imports torch. `train` rebuilds the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

ModelName = Literal["policy", "safety-rm", "helpfulness-rm"]


def weights(name: ModelName) -> Path:
    """Return the folder of a shipped model, in the Hugging Face layout."""
    return Path(__file__).parent / "weights" / name
