"""The manifest: a run goes on only as what it began as."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import manifest as example
from winnow.models.errors import RunError
from winnow.server.distill import manifest


def test_the_same_run_goes_on(tmp_path: Path) -> None:
    manifest.claim(tmp_path, example(), is_begun=False)
    before = (tmp_path / manifest.NAME).read_bytes()
    manifest.claim(tmp_path, example(), is_begun=True)
    assert (tmp_path / manifest.NAME).read_bytes() == before
    assert manifest.load(tmp_path) == example()


def test_another_run_is_refused_with_every_difference(tmp_path: Path) -> None:
    manifest.claim(tmp_path, example(), is_begun=False)
    other = example(seed=7)
    other["input"] = {**example()["input"], "sha256": "f" * 64}  # type: ignore[dict-item]
    other["models"]["policy"]["id"] = "another"  # type: ignore[index]
    with pytest.raises(RunError) as refused:
        manifest.claim(tmp_path, other, is_begun=False)
    text = str(refused.value)
    assert 'models.policy.id: began with "winnow-demo", now "another"' in text
    assert "settings.seed: began with 0, now 7" in text
    assert "input.sha256" in text
    assert text.count("began with") == 3
    assert manifest.load(tmp_path) == example()


def test_what_is_missing_or_new_is_a_difference(tmp_path: Path) -> None:
    manifest.claim(tmp_path, {"settings": {"a": 1}}, is_begun=False)
    with pytest.raises(RunError, match=r"settings\.a: began with 1, now null"):
        manifest.claim(tmp_path, {"settings": {}}, is_begun=False)
    with pytest.raises(RunError, match=r"recipe: began with null, now \{\}"):
        manifest.claim(tmp_path, {"settings": {"a": 1}, "recipe": {}}, is_begun=False)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_manifest_that_was_changed_from_outside(content: bytes, tmp_path: Path) -> None:
    (tmp_path / manifest.NAME).write_bytes(content)
    with pytest.raises(RunError, match="changed from outside"):
        manifest.claim(tmp_path, example(), is_begun=False)


def test_answers_without_a_manifest_are_nobodys(tmp_path: Path) -> None:
    """A journal whose manifest was lost was taken for this run's once, whatever it had been."""
    with pytest.raises(RunError, match="whose answers are these"):
        manifest.claim(tmp_path, example(), is_begun=True)
    assert not list(tmp_path.iterdir())
