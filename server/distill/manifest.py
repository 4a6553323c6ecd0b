"""The manifest of a run: its input, settings and models. A run is only continued with the ones it began with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from winnow.models.errors import RunError
from winnow.server.distill import journal
from winnow.server.distill.files import write
from winnow.server.distill.records import FORMAT, other_format

NAME = "manifest.json"
Manifest = Mapping[str, Any]
"""Nested plain values, without times and paths, so that equal runs have equal manifests.

`format`, `winnow` (the version), `input` {name, sha256, bytes, format}, `models` {policy, safety, helpfulness: {id,
sha256, kind, template, dtype, context}, or server: {id, sha256}}, `settings` and `recipe`. The policy is also
`served_as` a name, that of the model on the wire. A shard's has its `shard` {index, of} besides.
"""


def claim(folder: Path, manifest: Manifest, *, is_begun: bool) -> None:
    """Write the manifest into a new folder, or compare it with the existing one. `is_begun`: the journal has entries.

    Raises:
        RunError: the folder holds a different run; the message lists every difference.
    """
    if not (folder / NAME).exists():
        if is_begun:
            raise RunError(
                f"{folder} has a journal but no {NAME}, so the origin of its answers is unknown; choose another --out"
            )
        write(folder / NAME, orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n")
        return
    found = differences(load(folder), orjson.loads(orjson.dumps(manifest)))
    if found:
        listed = "".join(f"\n  {name}: began with {was}, now {now}" for name, was, now in found)
        raise RunError(f"{folder} holds another run; choose another --out, or continue with what it began as:{listed}")


def load(folder: Path) -> Manifest:
    """Return the manifest of a run.

    Raises:
        RunError: there is none that can be read, or the run's journal has another format.
    """
    try:
        manifest = orjson.loads((folder / NAME).read_bytes())
    except OSError:
        journal.offsets(folder)  # refuses an old journal by its format, which says more than a missing manifest
        raise journal.no_run(folder, NAME) from None
    except orjson.JSONDecodeError:
        raise RunError(f"{folder / NAME} is not JSON; it was edited by hand") from None
    if not isinstance(manifest, dict):
        raise RunError(f"{folder / NAME} is not a manifest; it was edited by hand")
    if manifest.get("format") != FORMAT:
        raise other_format(folder, manifest.get("format"), manifest.get("winnow"))
    return manifest


def require_readable(folder: Path) -> None:
    """Check that a run in `folder`, if there is one, has this journal format, before anything opens its journal.

    Raises:
        RunError: it has another format; the message names the version that wrote it.
    """
    if os.path.exists(folder / NAME):  # False, too, where the name cannot be one; making the folder tells why
        load(folder)
    elif os.path.exists(folder / journal.NAME):
        journal.offsets(folder)


def differences(one: Manifest, other: Manifest) -> list[tuple[str, str, str]]:
    """Return the names of all values that differ between two manifests, with both values as they are shown."""
    return list(_differences(one, other, ""))


def _differences(was: Any, now: Any, name: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in (*was, *(key for key in now if key not in was)):
            yield from _differences(was.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif was != now:
        yield name, _shown(was), _shown(now)


def _shown(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}…"
