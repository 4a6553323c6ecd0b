"""Tables on disk, as rows: Parquet files, and folders saved by the `datasets` library. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from winnow.models.errors import RunError

if TYPE_CHECKING:
    from pyarrow import RecordBatch

BATCH_ROWS = 64
BUFFER = 1 << 20
_EXTRA = 'pip install "winnow-llm[distill]"'


def is_dataset(folder: Path) -> bool:
    """Whether the `datasets` library saved `folder`: a data set, or several splits of one."""
    files = ("dataset_info.json", "state.json")
    return (folder / "dataset_dict.json").is_file() or all((folder / name).is_file() for name in files)


def total(path: Path, file: str) -> int:
    """Return the number of rows; `file` is the name to use in errors, here and below.

    Raises:
        RunError: the table is damaged.
    """
    return len(_dataset(path, file)) if path.is_dir() else int(_parquet(path, file).metadata.num_rows)


def rows(
    path: Path, file: str, one_of: Sequence[str], wanted: Sequence[str] | None
) -> Iterator[Mapping[str, Any] | None]:
    """Yield all rows with the `wanted` columns (None: all), a few in memory at a time.

    None stands for a row whose text is not UTF-8.

    Raises:
        RunError: the table is damaged, or has no column of `one_of`. The rows before the damage have been yielded.
    """
    table: Any = _dataset(path, file).with_format("arrow") if path.is_dir() else _parquet(path, file)
    names, count = (
        (table.column_names, len(table)) if path.is_dir() else (table.schema_arrow.names, table.metadata.num_rows)
    )
    if count and not set(names) & set(one_of):
        raise RunError(f"{file} has no column {' or '.join(one_of)}; its columns are: {', '.join(names) or 'none'}")
    columns = [name for name in names if wanted is None or name in wanted]
    if path.is_dir():
        yield from _rows(table.select_columns(columns).iter(BATCH_ROWS), file)
    else:
        with table:
            yield from _rows(table.iter_batches(BATCH_ROWS, columns=columns), file)


def _rows(batches: Iterable[RecordBatch], file: str) -> Iterator[Mapping[str, Any] | None]:
    import pyarrow

    try:
        for batch in batches:
            try:
                found = batch.to_pylist()
            except UnicodeDecodeError:
                found = [_row(batch.slice(place, 1)) for place in range(batch.num_rows)]
            yield from found
    except pyarrow.ArrowException:
        raise _damaged(file) from None


def _row(batch: RecordBatch) -> Mapping[str, Any] | None:
    try:
        return dict(batch.to_pylist()[0])
    except UnicodeDecodeError:
        return None


def _parquet(path: Path, file: str) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise RunError(f"{file} is Parquet, which needs: {_EXTRA}") from None
    try:
        return parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True)
    except pyarrow.ArrowException:
        raise _damaged(file) from None


def _dataset(folder: Path, file: str) -> Any:
    try:
        import datasets  # type: ignore[import-untyped]
        import pyarrow
    except ImportError:
        raise RunError(f"{file} is a data set of the datasets library, which needs: {_EXTRA}") from None
    try:
        return datasets.load_from_disk(str(folder.resolve()))
    except (ValueError, KeyError, TypeError, pyarrow.ArrowException):
        raise _damaged(file) from None


def split_of(folder: Path, split: str) -> tuple[Path, str]:
    """Return the folder of a data set's `split`, and its name.

    "" means the only split, and is returned if there are none.

    Raises:
        RunError: there is no such split, or there are several to choose from.
    """
    splits: list[str] = []
    if not (folder / "state.json").is_file():
        splits = [str(name) for name in _json(folder / "dataset_dict.json").get("splits", [])]
    chosen = split or (splits[0] if len(splits) == 1 else "")
    if chosen in splits:
        return folder / chosen, chosen
    if splits or split:
        raise RunError(f"{folder} has the splits {', '.join(splits) or '(none)'}; name one, as in '{folder}#SPLIT'")
    return folder, ""


def members(folder: Path) -> list[Path]:
    """Return the files of a data set, without the caches that the library has left beside them.

    Raises:
        RunError: the data set is damaged.
    """
    try:
        data = [folder / item["filename"] for item in _json(folder / "state.json")["_data_files"]]
    except (KeyError, TypeError):
        raise _damaged(folder.name) from None
    return [folder / "dataset_info.json", folder / "state.json", *data]


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(orjson.loads(path.read_bytes()))
    except (ValueError, TypeError):
        raise _damaged(path.name) from None


def _damaged(file: str) -> RunError:
    return RunError(f"{file} is damaged or not whole; fetch or write it again")
