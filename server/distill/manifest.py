"""What a run is: its input, its settings, its models. A run goes on only as what it began as."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from winnow.models.errors import RunError
from winnow.server.distill.files import write

NAME = "manifest.json"
Manifest = Mapping[str, Any]
"""`format`, `winnow` (the version), `input` {name, sha256, bytes}, `models` {policy, safety, helpfulness: {id, sha256}},
`settings` and `recipe`; nested plain values, no times and no paths, so that equal runs have equal manifests."""


def claim(folder: Path, manifest: Manifest, *, is_begun: bool) -> None:
    """Write the manifest into a new folder, or compare it with the one that is there. `is_begun`: the journal has entries.

    Raises:
        RunError: the folder holds a run that is not this one; the message lists every difference.
    """
    if not (folder / NAME).exists():
        if is_begun:
            raise RunError(f"{folder} has a journal and no {NAME}: whose answers are these? Choose another --out")
        write(folder / NAME, orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n")
        return
    differences = list(_differences(load(folder), orjson.loads(orjson.dumps(manifest)), ""))
    if differences:
        listed = "".join(f"\n  {line}" for line in differences)
        raise RunError(f"{folder} holds another run; choose another --out, or go on with what it began as:{listed}")


def load(folder: Path) -> Manifest:
    """The manifest of a run.

    Raises:
        RunError: there is none that can be read.
    """
    try:
        manifest = orjson.loads((folder / NAME).read_bytes())
    except OSError:
        raise RunError(f"{folder} holds no run: there is no {NAME}") from None
    except orjson.JSONDecodeError:
        raise RunError(f"{folder / NAME} is not JSON; it was changed from outside") from None
    if not isinstance(manifest, dict):
        raise RunError(f"{folder / NAME} is not a manifest; it was changed from outside")
    return manifest


def _differences(was: Any, now: Any, name: str) -> Iterator[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in (*was, *(key for key in now if key not in was)):
            yield from _differences(was.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif was != now:
        yield f"{name}: began with {_shown(was)}, now {_shown(now)}"


def _shown(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}…"
