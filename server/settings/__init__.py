"""Every setting of the server: `winnow.toml` < environment `WINNOW_…` < command-line flags.

One frozen tree, `Settings`. Each default stands there once, and the command line, its help and the docs read it
from there. Settings of one engine are nested under `[policy]`, `[safety]` and `[helpfulness]`; the flat names
of `ALIASES` mean the same and are the command line's flags. The environment is read in this package only.
"""

from winnow.server.settings.engines import (
    ENGINES,
    MAX_GIB,
    EngineSettings,
    HelpfulnessSettings,
    PolicySettings,
    RemotableSettings,
    RewardModelSettings,
    SafetySettings,
)
from winnow.server.settings.loading import load, of_reward_model
from winnow.server.settings.options import Option, options
from winnow.server.settings.sources import ALIASES
from winnow.server.settings.tree import Settings

__all__ = [
    "ALIASES",
    "ENGINES",
    "MAX_GIB",
    "EngineSettings",
    "HelpfulnessSettings",
    "Option",
    "PolicySettings",
    "RemotableSettings",
    "RewardModelSettings",
    "SafetySettings",
    "Settings",
    "load",
    "of_reward_model",
    "options",
]
