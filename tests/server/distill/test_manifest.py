"""The manifest: a run goes on only as what it began as."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import manifest as example
from winnow.server.distill import manifest
from winnow.server.distill.files import RunError


def test_the_same_run_goes_on(tmp_path: Path) -> None:
    assert not manifest.claim(tmp_path, example())
    before = (tmp_path / manifest.NAME).read_bytes()
    assert manifest.claim(tmp_path, example())
    assert (tmp_path / manifest.NAME).read_bytes() == before
    assert manifest.load(tmp_path) == example()


def test_another_run_is_refused_with_every_difference(tmp_path: Path) -> None:
    manifest.claim(tmp_path, example())
    other = example(seed=7)
    other["input"] = {**example()["input"], "sha256": "f" * 64}  # type: ignore[dict-item]
    other["models"]["policy"]["id"] = "another"  # type: ignore[index]
    with pytest.raises(RunError) as refused:
        manifest.claim(tmp_path, other)
    text = str(refused.value)
    assert 'models.policy.id: began with "winnow-demo", now "another"' in text
    assert "settings.seed: began with 0, now 7" in text
    assert "input.sha256" in text
    assert text.count("began with") == 3
    assert manifest.load(tmp_path) == example()


def test_what_is_missing_or_new_is_a_difference(tmp_path: Path) -> None:
    manifest.claim(tmp_path, {"settings": {"a": 1}})
    with pytest.raises(RunError, match=r"settings\.a: began with 1, now null"):
        manifest.claim(tmp_path, {"settings": {}})
    with pytest.raises(RunError, match=r"recipe: began with null, now \{\}"):
        manifest.claim(tmp_path, {"settings": {"a": 1}, "recipe": {}})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_manifest_that_was_changed_from_outside(content: bytes, tmp_path: Path) -> None:
    (tmp_path / manifest.NAME).write_bytes(content)
    with pytest.raises(RunError, match="changed from outside"):
        manifest.claim(tmp_path, example())
