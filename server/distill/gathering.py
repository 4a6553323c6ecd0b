"""`winnow distill gather`: one run from the folders of its shards, as if one process had answered every row.

Entries are copied as they are, in the order of the input. The manifest is the shards' without their number, so the
gathered run can be exported, reported, merged and continued like any other.
"""

from __future__ import annotations

import contextlib
import filecmp
import heapq
import os
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winnow.models.errors import RunError
from winnow.server.distill import journal, manifest, outcome, shards, tokenizer_copy
from winnow.server.distill.export import Format
from winnow.server.distill.files import made, undone, whole, write
from winnow.server.distill.opening import SPOOL
from winnow.server.distill.shards import Shard

OTHER_FILES = 256
"""Files that the process may have open beside the shards' journals."""


@dataclass(frozen=True, slots=True)
class Part:
    """The folder of a shard; `identity` is its manifest as the whole run has it."""

    folder: Path
    shard: Shard
    identity: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Part:
        """Return the shard in `folder`.

        Raises:
            RunError: it holds no run, or a whole one.
        """
        found = dict(manifest.load(folder))
        shard = shards.of_manifest(found)
        if shard is None:
            raise RunError(f"{folder} is no shard but a whole run; only folders of winnow distill --shard are gathered")
        del found[shards.KEY]
        return cls(folder, shard, found)

    def lack(self) -> str | None:
        """Return why the shard cannot be gathered yet; None if it can."""
        if journal.is_being_written(self.folder):
            return "is still being written"
        entries, rows = len(journal.offsets(self.folder)), shards.finished_rows(self.folder)
        if rows is None:
            return f"has not ended ({entries:,} rows so far)"
        return None if entries == rows else f"has {entries:,} of its {rows:,} rows; its journal is damaged"


def gather(folders: Sequence[Path], out: Path, formats: tuple[Format, ...], *, as_json: bool) -> int:
    """Make one run in `out` from all shards of a run, export it, and return the exit status, as `distill` does.

    The same call again writes the exports again.

    Raises:
        RunError: a shard is missing, given twice, of another run or not finished, or `out` holds something else.
    """
    parts = sorted(map(Part.read, folders), key=lambda part: part.shard)
    if any(out.resolve() == part.folder.resolve() for part in parts):
        raise RunError(f"the output folder {out} is a shard; choose another --out")
    _require_one_run(parts)
    _require_complete(parts)
    _require_finished(parts)
    own = [out / journal.LOCK]
    with made(out), undone(own, lambda: (out / manifest.NAME).exists()), journal.locked(out):
        is_begun = _size(out / journal.NAME) > 0
        manifest.claim(out, parts[0].identity, is_begun=is_begun)
        _copy_files(parts, out)
        _join(parts, out / journal.NAME, is_begun=is_begun)
        return outcome.conclude(out, formats, as_json=as_json)


def _require_one_run(parts: Sequence[Part]) -> None:
    first = parts[0]
    for part in parts[1:]:
        differing = manifest.differences(first.identity, part.identity)
        if part.shard.of != first.shard.of:
            differing.insert(0, ("shards", str(first.shard.of), str(part.shard.of)))
        if differing:
            listed = "".join(f"\n  {name}: {one} and {other}" for name, one, other in differing)
            raise RunError(f"{first.folder} and {part.folder} are shards of different runs:{listed}")


def _require_complete(parts: Sequence[Part]) -> None:
    found: dict[int, Part] = {}
    for part in parts:
        if other := found.get(part.shard.index):
            raise RunError(f"{other.folder} and {part.folder} are both shard {part.shard}; name one of them")
        found[part.shard.index] = part
    of = parts[0].shard.of
    if missing := [index for index in range(1, of + 1) if index not in found]:
        named = ",".join(map(str, missing))
        raise RunError(
            f"{len(missing)} of {of} shards are missing: {named}; name their folders, too, or run them first "
            f"(Slurm: --array={named})"
        )


def _require_finished(parts: Sequence[Part]) -> None:
    lacking = [(part, lack) for part in parts if (lack := part.lack())]
    if lacking:
        listed = "".join(f"\n  {part.folder}, shard {part.shard}, {lack}" for part, lack in lacking)
        named = ",".join(str(part.shard.index) for part, _ in lacking)
        raise RunError(
            f"{len(lacking)} of {parts[0].shard.of} shards are not finished; give each its own command again "
            f"(Slurm: --array={named}):{listed}"
        )


def _copy_files(parts: Sequence[Part], out: Path) -> None:
    """Copy what every shard has alike: the policy's tokenizer, and the copy of standard input.

    Raises:
        RunError: it differs between shards, or from what is there.
    """
    copied: dict[str, Path] = {}
    for part in parts:
        kept = sorted((part.folder / tokenizer_copy.FOLDER).glob("*"))
        for file in (*kept, *(path for path in (part.folder / SPOOL,) if path.exists())):
            name = str(file.relative_to(part.folder))
            if name not in copied and not (out / name).exists():
                (out / name).parent.mkdir(exist_ok=True)
                write(out / name, file.read_bytes())
            elif not filecmp.cmp(file, copied.get(name, out / name), shallow=False):
                raise RunError(f"{file} is not {copied.get(name, out / name)}, though both belong to one run")
            copied.setdefault(name, file)


def _join(parts: Sequence[Part], target: Path, *, is_begun: bool) -> None:
    """Write the entries of all shards into one journal, or compare them with the one that is there."""
    _allow_files(len(parts))
    with whole(target) as file:
        for _, entry in heapq.merge(*map(_entries, parts), key=lambda item: item[0]):
            file.write(entry)
        file.flush()
        if is_begun and not filecmp.cmp(file.name, target, shallow=False):
            raise RunError(
                f"{target.parent} has other answers than these shards, perhaps since it was gathered before; choose "
                "another --out"
            )
    last = max((part.folder / journal.NAME).stat().st_mtime for part in parts)
    os.utime(target, (last, last))  # the day of the last answer, which gains.json names


def _entries(part: Part) -> Iterator[tuple[int, bytes]]:
    for line, entry in journal.lines(part.folder):
        if not part.shard.has(line):
            raise RunError(f"{part.folder} is shard {part.shard}, but has an entry of row {line}, which is another's")
        yield line, entry


def _allow_files(count: int) -> None:
    """Let the process have every shard's journal open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # then opening one of them says so
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
