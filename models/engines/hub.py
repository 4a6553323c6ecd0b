"""Checkpoints by name: folders, and ids of the model hub, whose files its library fetches and keeps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from winnow.models.errors import CheckpointError

_FETCHED = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt", "winnow-card.toml")


def is_local(checkpoint: str) -> bool:
    """Whether `checkpoint` names a folder rather than a hub id (`owner/name`)."""
    return Path(checkpoint).exists() or checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") != 1


@contextlib.contextmanager
def _fetching(checkpoint: str) -> Iterator[None]:
    """Translate every failure of the hub's library.

    It reads proxies and certificates from the environment, and raises ImportError, InvalidURL and others for what it
    cannot use. No message is repeated but an ImportError's: the others may show a proxy's password.
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "GatedRepoError":
            raise CheckpointError(
                f"{checkpoint} is a gated repository: accept its licence on the hub, and set HF_TOKEN"
            ) from None
        reason = str(error) if isinstance(error, ImportError) else type(error).__name__
        raise CheckpointError(
            f"{checkpoint} cannot be fetched from the hub: {reason}; check its name, the network, and the "
            "environment's HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE"
        ) from None


def config_folder(checkpoint: str) -> Path:
    """Return a folder with the config.json of `checkpoint`; of a hub id only that is fetched.

    Raises:
        CheckpointError: it cannot be fetched.
    """
    return Path(checkpoint) if is_local(checkpoint) else _fetch_config(checkpoint)


def _fetch_config(checkpoint: str) -> Path:
    from huggingface_hub import hf_hub_download

    with _fetching(checkpoint):
        return Path(hf_hub_download(checkpoint, "config.json")).parent


def fetched(checkpoint: str, patterns: Sequence[str] = _FETCHED) -> Path:
    """Return the folder in the hub library's cache with the files of a hub id that match `patterns`.

    Raises:
        CheckpointError: they cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    with _fetching(checkpoint):
        return Path(snapshot_download(checkpoint, allow_patterns=list(patterns)))


def cached(checkpoint: str, patterns: Sequence[str] = _FETCHED) -> Path | None:
    """Return the folder of a hub id of which all that matches `patterns` was fetched before; None if it was not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(checkpoint, allow_patterns=list(patterns), local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None


def snapshot(checkpoint: str) -> Path:
    """Return the folder of `checkpoint`: itself, or a hub id's in the hub library's cache, fetched if need be.

    Raises:
        CheckpointError: there is no such folder, or the hub does not hand it out.
    """
    if not is_local(checkpoint):
        return fetched(checkpoint)
    folder = Path(checkpoint)
    if folder.is_file():
        raise CheckpointError(f"{checkpoint} is a file; name the folder that holds the whole checkpoint")
    if not folder.is_dir():
        raise CheckpointError(f"no such folder: {checkpoint}")
    return folder
