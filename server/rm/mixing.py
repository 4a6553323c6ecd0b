"""Mixes of several sources by share, as `datasets` interleaves them: until the first is used up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from winnow.models.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Part:
    """Some files, and the share of the training that they have in a mix; None without a mix."""

    files: tuple[str, ...]
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """The size of a part that there was to train on, and of what was used of it."""

    name: str
    share: float | None
    examples: int
    used: int

    @property
    def left_over(self) -> int:
        """The rest that the mix did not use, because another part was used up before."""
        return self.examples - self.used


def parsed(text: str) -> Part:
    """Return the part of a mix that `SHARE:FILE` names.

    Raises:
        SettingsError: there is no share above 0, or no file.
    """
    share, colon, file = text.partition(":")
    try:
        value = float(share)
    except ValueError:
        value = 0.0
    if not (colon and file and 0 < value < float("inf")):
        raise SettingsError(f"--mix: a share above 0, a colon and a file, such as 0.9:safety.jsonl, not {text!r}")
    return Part((file,), value)


def mixed(sizes: Sequence[int], shares: Sequence[float], seed: int) -> list[tuple[int, int]]:
    """Return (source, place) of the examples in the order of a mix; `sizes` are those of the sources, none 0.

    Each is drawn from a source with the probability of its share, in a shuffled order, until the first source is used
    up: none comes twice.
    """
    from datasets import (  # type: ignore[import-untyped]
        Dataset,
        disable_progress_bars,
        interleave_datasets,
    )

    disable_progress_bars()
    sources = [
        Dataset.from_dict({"source": [number] * size, "place": list(range(size))}).shuffle(seed=seed + number)
        for number, size in enumerate(sizes)
    ]
    parts = [share / max(shares) for share in shares]  # first, because their sum may be beyond all floats
    chances = [part / sum(parts) for part in parts]
    rows = interleave_datasets(sources, probabilities=chances, seed=seed, stopping_strategy="first_exhausted")
    return list(zip(rows["source"], rows["place"], strict=True))
