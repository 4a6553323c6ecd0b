"""The manifest: a run is only continued with the input, settings and models it began with."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from tests.runs import manifest as example
from winnow.models.errors import RunError
from winnow.server.distill import journal, manifest
from winnow.server.distill.command import RunOptions, distill
from winnow.server.distill.export import ExportOptions
from winnow.server.distill.export.formats import export
from winnow.server.distill.plans import Choices
from winnow.server.distill.records import FORMAT
from winnow.server.distill.report import report
from winnow.server.settings import Settings


def test_the_same_run_continues(tmp_path: Path) -> None:
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


def test_a_missing_or_new_key_is_a_difference(tmp_path: Path) -> None:
    old = {"format": FORMAT, "settings": {"a": 1}}
    manifest.claim(tmp_path, old, is_begun=False)
    with pytest.raises(RunError, match=r"settings\.a: began with 1, now null"):
        manifest.claim(tmp_path, {**old, "settings": {}}, is_begun=False)
    with pytest.raises(RunError, match=r"recipe: began with null, now \{\}"):
        manifest.claim(tmp_path, {**old, "recipe": {}}, is_begun=False)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_manifest_that_was_edited_by_hand(content: bytes, tmp_path: Path) -> None:
    (tmp_path / manifest.NAME).write_bytes(content)
    with pytest.raises(RunError, match="edited by hand"):
        manifest.claim(tmp_path, example(), is_begun=False)


def test_answers_without_a_manifest_are_refused(tmp_path: Path) -> None:
    """A journal whose manifest was lost was once taken for this run's, whatever run had written it."""
    with pytest.raises(RunError, match="the origin of its answers is unknown"):
        manifest.claim(tmp_path, example(), is_begun=True)
    assert not list(tmp_path.iterdir())


FORMAT_1 = (
    b'{"line":1,"id":null,"digest":"00","messages":[{"role":"user","content":"Hello"}],"is_safety":false,'
    b'"category":null,"silent":false,"n":1,"combiner":"llama2","arms":[{"candidates":1,"temperature":1.0,'
    b'"preprompt":null}],"answers":[{"index":0,"arm":0,"text":"Hi","finish_reason":"stop","tokens":2,'
    b'"safety_logit":1.0,"helpfulness_logit":2.0,"branch":"helpful"}],"ranking":[0],"failures":[],'
    b'"prompt_tokens":9,"seconds":0.1}\n'
)
TORN = FORMAT_1[:100]


def run_distill(folder: Path) -> None:
    prompts = folder.parent / "prompts.jsonl"
    prompts.write_bytes(b'{"prompt": "Hello"}\n')
    choices = Choices(1, (1.0,), False, 1.0, 64, "llama2", 0)
    distill(RunOptions(str(prompts), folder, choices, server="http://127.0.0.1:9/v1"), Settings())


def run_export(folder: Path) -> None:
    export(folder, ("sft",), ExportOptions())


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """Restores the handlers that `distill` replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signal_handlers")
@pytest.mark.parametrize("has_manifest", [True, False])
@pytest.mark.parametrize("run", [run_distill, run_export, report])
def test_a_run_of_format_1_is_refused_and_left_as_it_was(
    run: Callable[[Path], object], has_manifest: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / journal.NAME).write_bytes(FORMAT_1 + TORN)
    if has_manifest:
        (folder / manifest.NAME).write_bytes(orjson.dumps({**example(), "format": 1, "winnow": "0.1.0"}))
    with pytest.raises(RunError) as refused:
        run(folder)
    text = str(refused.value)
    assert ("Winnow 0.1.0" if has_manifest else "Winnow 0.1") in text
    assert "format 1" in text
    assert len(text.splitlines()) == 1
    assert (folder / journal.NAME).read_bytes() == FORMAT_1 + TORN
    assert not (folder / "export").exists()
    assert not (folder / "report").exists()
