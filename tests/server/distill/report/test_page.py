"""The report as a reader gets it: one page, safe, the same every time, whatever the run."""

from __future__ import annotations

import base64
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from random import Random

import matplotlib as mpl
import pytest

from tests.runs import make_run, manifest, record, scored
from winnow.models.combiner import combine
from winnow.models.errors import RunError
from winnow.models.reporting.numbers import number, percent, share, signed, span
from winnow.models.reporting.pages import visible
from winnow.models.reporting.plots import spread
from winnow.models.statistics import Interval
from winnow.models.types import Message
from winnow.server.distill import manifest as manifests
from winnow.server.distill.journal import NAME, Journal
from winnow.server.distill.records import Arm
from winnow.server.distill.report import ReportOptions, report
from winnow.server.distill.report.page import notes, render
from winnow.server.distill.report.plots import distribution
from winnow.server.distill.report.survey import gather

EVIL = "<script>alert(1)</script> & \"double\" 'single' \x00\x1b[31m\u202e\u2028</pre> {{ 7 * 7 }}"
ARMS = (Arm(3, 0.7), Arm(3, 1.3))
PNG = b"\x89PNG\r\n\x1a\n"
VOID = {"meta", "link", "img", "br"}


class Reader(HTMLParser):
    """Checks that tags nest, and keeps what a browser would load or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.images: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            assert values["alt"]
            self.images.append(values["src"] or "")
        if "id" in values:
            self.ids.add(values["id"] or "")
        if tag == "a":
            self.links.add(values["href"] or "")
        assert not any(name.startswith("on") for name in values)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "pre"} & set(self.open):
            self.text += data


def read(page: Path) -> Reader:
    return Reader(page.read_text(encoding="utf-8"))


def undrawn(folder: Path) -> str:
    """The page without its plots, which take most of the time."""
    return render(gather(folder, 10), manifests.load(folder), [], 0.01).decode()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page on a random run with two temperatures, failures and problems."""
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, 40, arms=ARMS)
    return report(folder)


def test_the_page_needs_nothing_else(written: Path) -> None:
    reader, page = read(written), written.read_text(encoding="utf-8")
    assert written == written.parent.parent / "report" / "index.html"
    assert "script" not in reader.tags
    assert reader.tags & {"iframe", "object", "form", "base"} == set()
    assert "http" not in re.sub(r'http-equiv="', "", page)
    assert all(source.startswith("data:image/png;base64,") for source in reader.images)
    assert {link.removeprefix("#") for link in reader.links} <= reader.ids


def test_the_plots_lie_beside_the_page_and_in_it(written: Path) -> None:
    files = sorted(written.parent.glob("*.png"))
    assert len(files) == 9
    embedded = {base64.b64decode(source.partition(",")[2]) for source in read(written).images}
    assert embedded == {path.read_bytes() for path in files}
    for png in embedded:
        assert png.startswith(PNG)
        assert b"tEXt" not in png  # no program, no date
    assert sorted(path.name for path in written.parent.iterdir()) == sorted(
        ["index.html", "report.json", *(path.name for path in files)]
    )


def test_nothing_on_the_page_is_not_a_number(written: Path) -> None:
    text = read(written).text
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", text)


def test_the_page_names_the_run(written: Path) -> None:
    text = read(written).text
    for expected in ("winnow-demo", "safety-rm", "settings.max_tokens", "invalid_json", "T = 0.7", "facts", "danger"):
        assert expected in text


def test_equal_journals_give_equal_bytes(tmp_path: Path) -> None:
    """The order in which prompts were finished is not the journal's content."""
    pages = []
    for name in ("one", "other"):
        folder = tmp_path / name
        make_run(folder, 12, arms=(Arm(2, 1.0),))
        if pages:
            lines = (folder / NAME).read_bytes().splitlines(keepends=True)
            (folder / NAME).write_bytes(b"".join(reversed(lines)))
        with mpl.rc_context({"font.size": 7.0 if pages else 12.0, "axes.grid": not pages}):
            pages.append(report(folder, tmp_path / f"{name}-report"))
    first, second = ({path.name: path.read_bytes() for path in page.parent.iterdir()} for page in pages)
    assert first == second


def test_untrusted_text_is_shown_not_obeyed(tmp_path: Path) -> None:
    rng = Random(0)
    answers = [scored(index, EVIL, combine(False, 3.0 if index else -3.0, float(index))) for index in (0, 1)]
    messages = (Message("user", EVIL),)
    entry = record(
        1, rng, (Arm(2, 1.0),), answers=answers, failures=(), messages=messages, category=EVIL, id=EVIL,
        is_safety=False,
    )  # fmt: skip
    settings = manifest()
    settings["input"] = {"name": EVIL}
    settings["models"] = {EVIL: {"id": EVIL}}
    manifests.claim(tmp_path, settings, is_begun=False)
    with Journal(tmp_path) as journal:
        journal.append(entry)
    text = undrawn(tmp_path)
    reader = Reader(text)
    assert "script" not in reader.tags
    assert "<script" not in text
    assert not re.search("[\x00\x1b\u202e\u2028]", text)
    assert "{{ 7 * 7 }}" in text
    assert "␀␛[31m⟨U+202E⟩⟨U+2028⟩" in text
    assert text.count("&lt;script&gt;") >= 8
    assert "&#34;double&#34; &#39;single&#39;" in text


def test_unsafe_answers_are_folded_away(tmp_path: Path) -> None:
    answers = [scored(0, "terrible", combine(False, -3.0, 1.0))]
    manifests.claim(tmp_path, manifest(), is_begun=False)
    with Journal(tmp_path) as journal:
        journal.append(record(1, Random(0), (Arm(1, 1.0),), answers=answers, failures=(), is_safety=False))
    page = undrawn(tmp_path)
    assert page.count("terrible") == 1
    before = page[: page.index("terrible")]
    assert before.count("<details>") == before.count("</details>") + 1
    assert "The only answer" in page


@pytest.mark.parametrize("problems", [0, 3])
def test_a_run_without_answers_gives_a_page_that_says_so(tmp_path: Path, problems: int) -> None:
    make_run(tmp_path, 0, problems=problems)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "branches.png").write_bytes(b"of an older report")
    (tmp_path / "report" / "notes.png").write_bytes(b"someone's own")
    page = report(tmp_path)
    reader = read(page)
    assert "No prompt has answers yet" in reader.text
    assert ("invalid_json" in reader.text) == bool(problems)
    assert reader.images == []
    assert sorted(path.name for path in page.parent.iterdir()) == ["index.html", "notes.png", "report.json"]


def test_one_candidate_a_prompt(tmp_path: Path) -> None:
    make_run(tmp_path, 6, arms=(Arm(1, 1.0),))
    text = read(report(tmp_path)).text
    assert "With K = 1 there is no doubling to measure" in text
    assert "not available" in text
    assert "intervals are too narrow" in text


def test_a_run_of_safety_prompts_alone_has_no_helpfulness(tmp_path: Path) -> None:
    manifests.claim(tmp_path, manifest(), is_begun=False)
    with Journal(tmp_path) as journal:
        journal.append(record(1, Random(1), (Arm(3, 1.0),), is_safety=True))
    counts = gather(tmp_path, 0).counts
    assert distribution("R_h", counts.candidates, counts.winners) is None
    assert "R_h –" in Reader(undrawn(tmp_path)).text


def test_notes_say_how_the_curves_came_about(tmp_path: Path) -> None:
    make_run(tmp_path, 3, arms=(Arm(2, 1.0),))
    findings = gather(tmp_path, 0)
    findings.counts.failed, findings.counts.prompts = 0, 250_000
    assert notes(replace(findings, kept=100_000)) == []
    (note,) = notes(replace(findings, kept=100_000, is_partial=True))
    assert "random sample of 100,000 of the 250,000 prompts" in note
    findings.counts.failed, findings.counts.combiners = 1, Counter(safe_first=3)
    few, failed, safe = notes(findings)
    assert "fewer than 20 prompts" in few
    assert "rest on fewer prompts" in failed
    assert "ranks safe answers first" in safe


def test_options(tmp_path: Path) -> None:
    make_run(tmp_path, 5, arms=(Arm(2, 1.0),))
    reader = Reader(render(gather(tmp_path, 0), manifests.load(tmp_path), [], 0.999).decode())
    assert "Beyond N = 1 the next doubling gains less than 0.999" in reader.text
    assert "examples" not in reader.ids


def test_another_folder(tmp_path: Path) -> None:
    make_run(tmp_path / "run", 0)
    page = report(tmp_path / "run", tmp_path / "a" / "b", ReportOptions(examples=0))
    assert page == tmp_path / "a" / "b" / "index.html"
    assert page.exists()


def test_a_torn_journal_can_be_read(tmp_path: Path) -> None:
    """A run that is being written ends in the middle of a line now and then."""
    make_run(tmp_path, 0, problems=2)
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'{"line": 3, "id"')
    assert "No prompt has answers yet" in read(report(tmp_path)).text


def test_a_missing_run_or_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        report(tmp_path)
    make_run(tmp_path / "run", 0)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match="cannot be written"):
        report(tmp_path / "run", tmp_path / "file")


@pytest.mark.parametrize("heights", [[0.5], [0.5, 0.5, 0.5], [0.1, 0.12, 0.6, 0.9, 0.97, 1.0], [0.0, 0.09, 0.18]])
def test_labels_do_not_lie_upon_each_other(heights: list[float]) -> None:
    placed = spread(heights, gap=0.1, top=1.0)
    assert all(high - low >= 0.1 - 1e-9 for low, high in pairwise(placed))
    assert max(placed) <= 1
    assert all(abs(new - old) <= 0.25 for new, old in zip(placed, heights, strict=True))


def test_visible() -> None:
    plain = "Plain text,\n\ttabs, é, 日本, emoji 👩\u200d🔬, ﷽ and ±½."
    assert visible(plain) == plain
    assert visible("\x00\x07\r\x7f\x85\u200b\ufeff\u2066\ud800\U000e0001") == (
        "␀␇␍␡⟨U+0085⟩⟨U+200B⟩⟨U+FEFF⟩⟨U+2066⟩⟨U+D800⟩⟨U+E0001⟩"
    )
    assert visible("a" * 6001) == "a" * 6000 + " … (1 more characters)"


def test_numbers() -> None:
    assert (number(0.12345), number(None), number(-0.00001)) == ("0.123", "–", "0.000")
    assert (signed(0.5), signed(-0.25, 2), signed(-0.00001)) == ("+0.500", "−0.25", "+0.000")
    assert (percent(0.1234), percent(-0.0001)) == ("12.3\u00a0%", "0.0\u00a0%")
    assert (share(1, 8), share(0, 0)) == ("12.5\u00a0%", "–")
    assert span(Interval(0.5, 0.25, 0.75, 9), 2) == "0.25\u00a0to\u00a00.75"
