"""The operator's screens in a real browser: Data and Operate, and the badge of a store that fails."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.live import ScriptedServer, question, scripted
from tests.server.api.test_stored import get, recording
from tests.server.web.pages import TextPolicy, TextReward, Visit, chromium, needs_chromium
from tests.server.web.test_playground import accessible, opened
from winnow.models.errors import StoreError
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.auth import ApiKeys
from winnow.server.settings import Settings
from winnow.server.store.store import Store

pytestmark = needs_chromium

GOOD, RUDE, HOSTILE = "It is Paris.", "I will hurt you.", "<img src=x onerror='window.hacked = 1'>\u202e"
SAFETY = {RUDE: -4.0}
ANSWERS = 25


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@contextlib.contextmanager
def kept(tokenizer: Tokenizer, folder: Path, *, texts: Any = (GOOD, RUDE), **fields: Any) -> Iterator[ScriptedServer]:
    """A server that records, whose candidates are `texts` in turn."""
    policy, safety = TextPolicy(texts=texts), TextReward(logits=SAFETY)
    with recording(tokenizer, folder, policy=policy, safety=safety, **fields) as server:
        yield server


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    """A server with recorded answers, the first of them to anna."""
    with kept(tokenizer, tmp_path_factory.mktemp("kept")) as running:
        with running.http as http:  # one connection: a new client takes longer than an answer
            for number in range(ANSWERS):
                body = question(f"Question {number}?", user="anna" if number < 2 else "bert")
                http.post("/v1/chat/completions", json=body)
        yield running


@contextlib.contextmanager
def at(browser: Browser, server: ScriptedServer, view: str, **context: Any) -> Iterator[Visit]:
    """The page at one of its views; in the end it must have complained of nothing."""
    with opened(browser, server, **context) as visit:
        visit.page.get_by_role("link", name=view).click()
        expect(visit.page.get_by_role("heading", name=view, exact=True)).to_be_visible()
        yield visit
        assert visit.complaints == []
        assert all(request.url.startswith((f"{server.url}/", "blob:")) for request in visit.requests)


def listed(page: Page) -> list[str]:
    return page.locator(".answers li strong").all_inner_texts()


def test_what_is_kept_is_counted_and_listed_by_pages(browser: Browser, server: ScriptedServer) -> None:
    expected = [f"Question {number}?" for number in reversed(range(ANSWERS))]
    with at(browser, server, "Data") as visit:
        page = visit.page
        expect(page.locator(".facts")).to_contain_text("Answers25")
        expect(page.locator(".answers li")).to_have_count(20)
        assert listed(page) == expected[:20]
        page.get_by_role("button", name="Older").click()
        expect(page.locator(".answers li")).to_have_count(5)
        assert listed(page) == expected[20:]
        page.get_by_role("button", name="Newer").click()
        expect(page.locator(".answers li")).to_have_count(20)
        page.get_by_label("Only those to a user").fill("anna")
        page.get_by_role("button", name="Show", exact=True).click()
        expect(page.locator(".answers li")).to_have_count(2)
        assert listed(page) == ["Question 1?", "Question 0?"]


def test_an_answer_opens_as_its_candidates_with_the_servers_numbers(browser: Browser, server: ScriptedServer) -> None:
    with at(browser, server, "Data") as visit:
        page = visit.page
        page.get_by_role("button", name="Open the answer to Question 24?").click()
        expect(page.get_by_role("heading", name="A recorded answer")).to_be_focused()
        expect(page.locator(".message.user")).to_contain_text("Question 24?")
        id = page.locator(".meta").first.inner_text().partition(" ")[0]
        report = get(server, id).json()["best_of_n"]
        by_rank = sorted(report["scored"], key=lambda item: item["rank"])
        shown = page.locator(".card").all()
        assert [int(card.get_attribute("data-index") or -1) for card in shown] == [item["index"] for item in by_rank]
        for item, card in zip(by_rank, shown, strict=True):
            combined = card.locator('[data-score="R_c"]')
            assert combined.get_attribute("data-value") == repr(item["combined"])
        expect(page.locator(".card").last.get_by_text(RUDE)).to_be_hidden()
        page.get_by_role("button", name="Back to the list").click()
        expect(page.get_by_role("heading", name="Recorded answers")).to_be_focused()


@pytest.mark.parametrize("format", ["sft", "preferences", "reward", "kto"])
def test_a_download_is_the_servers_export(browser: Browser, server: ScriptedServer, format: str) -> None:
    with at(browser, server, "Data") as visit:
        with visit.page.expect_download() as download:
            visit.page.get_by_role("button", name=format, exact=True).click()
        assert download.value.suggested_filename == f"winnow-{format}.jsonl"
        with server.http as http:
            assert download.value.path().read_bytes() == http.get(f"/v1/store/export/{format}").content
        expect(visit.page.get_by_text("is among the browser's downloads")).to_be_visible()


def test_a_user_is_forgotten_after_a_confirmation(browser: Browser, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Acceptance 16, from the page; with a key, which stays out of addresses."""
    key = "wk-of-an-operator-1f"
    (tmp_path / "keys").write_text(f"{key} use,operate")
    keys = ApiKeys.of(Settings(api_keys_file=tmp_path / "keys"))
    with kept(tokenizer, tmp_path, found=keys) as server:
        with server.http as http:
            for user in ("anna-77", "anna-77", "bert"):
                body = question(f"My secret is xylophone, says {user}", user=user)
                http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
        with opened(browser, server) as visit:
            page = visit.page
            page.get_by_label("API key").fill(key)
            page.keyboard.press("Enter")
            page.get_by_role("link", name="Data").click()
            expect(page.locator(".answers li")).to_have_count(3)
            with page.expect_download():
                page.get_by_role("button", name="kto", exact=True).click()
            page.get_by_label("The user or safety_identifier").fill("anna-77")
            page.get_by_role("button", name="Forget …").click()
            dialog = page.get_by_role("dialog")
            expect(dialog).to_contain_text("anna-77")
            page.keyboard.press("Escape")
            expect(dialog).to_have_count(0)
            expect(page.locator(".answers li")).to_have_count(3)
            page.get_by_role("button", name="Forget …").click()
            dialog.get_by_role("button", name="Delete for good").click()
            expect(page.get_by_text("2 answers to anna-77: deleted.")).to_be_visible()
            expect(page.locator(".note")).to_contain_text("kto → download")
            expect(page.locator(".answers li")).to_have_count(1)
            assert not any(key in request.url or "anna-77" in request.url for request in visit.requests)
            visit.complaints = [each for each in visit.complaints if "401" not in each]  # the browser notes the status
            assert visit.complaints == []
        for file in tmp_path.iterdir():
            assert b"says anna-77" not in file.read_bytes(), file


def test_hostile_answers_are_text_and_one_can_be_deleted(
    browser: Browser, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with kept(tokenizer, tmp_path, texts=[HOSTILE]) as server:
        server.chat(HOSTILE + "?")
        with at(browser, server, "Data") as visit:
            page = visit.page
            expect(page.locator(".answers li")).to_contain_text("onerror='window.hacked = 1'>⟨U+202E⟩?")
            page.get_by_role("button", name="Open the answer").click()
            expect(page.locator(".card")).to_have_count(4)
            assert page.evaluate("window.hacked") is None
            page.get_by_role("button", name="Delete this answer …").click()
            page.get_by_role("dialog").get_by_role("button", name="Delete for good").click()
            expect(page.get_by_text("None yet.")).to_be_visible()
            expect(page.locator(".facts")).to_contain_text("Answers0")


def test_an_unsafe_winner_is_not_shown_in_the_list(browser: Browser, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with kept(tokenizer, tmp_path, texts=[RUDE]) as server:
        server.chat()
        with at(browser, server, "Data") as visit:
            expect(visit.page.locator(".answers li")).to_contain_text("Its text is unsafe")
            assert RUDE not in visit.page.content()


def test_operate_shows_the_numbers_of_the_metrics(browser: Browser, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with kept(tokenizer, tmp_path) as server:
        for _ in range(3):
            server.chat()
        server.chat(best_of_n={"candidates": 12, "adaptive": {"start": 2, "step": 2, "stop": {"reward": 0.1}}})
        server.chat(temperature=0)
        with at(browser, server, "Operate") as visit:
            page = visit.page
            expect(page.get_by_text("ready", exact=True)).to_be_visible()
            for id, (head, *cells) in {
                "reduced-heading": ("at temperature 0 all would be equal", "1", "1"),
                "waves-heading": ("R_c was reached", "1", "2"),
                "engines-heading": ("policy", "0", "here", "—"),
                "store-heading": ("Recorded", "5"),
                "ends-heading": ("Candidates: scored", "15"),
            }.items():
                row = page.locator(f'section[aria-labelledby="{id}"] tbody tr').filter(has_text=head)
                expect(row.locator("td")).to_have_text(cells)
            expect(page.locator('section[aria-labelledby="latency-heading"] tbody tr')).to_have_count(5)
            expect(page.locator('[data-figure="queued"]')).to_have_text("0")
            expect(page.locator(".sparkline")).to_have_count(5)
            page.get_by_text("The charts as a table").click()
            rows = page.get_by_role("region", name="The newest readings").locator("tbody tr")
            expect(rows).to_have_count(2)  # the second reading comes by itself
            page.get_by_role("button", name="Pause").click()
            number = rows.count()
            page.clock.install()
            page.clock.run_for(20_000)
            assert rows.count() == number


def test_a_failing_store_has_a_badge_and_fails_no_answer(
    browser: Browser, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acceptance 14: locked, full, then corrupt; tests/server/store/test_recorder.py has disks that are full."""

    def full(*_: object) -> int:
        raise StoreError("full", "the disk is full")

    monkeypatch.setattr("winnow.server.store.sqlite.BUSY_SECONDS", 0.05)
    with kept(tokenizer, tmp_path) as server:
        server.chat()
        with server.http as http:
            assert http.get("/v1/store").json()["selections"] == 1
        other = sqlite3.connect(tmp_path / "winnow.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        assert server.chat().status_code == 200
        with server.http as http:
            assert http.get("/v1/store").status_code == 503
        with opened(browser, server) as visit:
            page = visit.page
            expect(page.locator(".chip.store")).to_contain_text("another process holds it · 1 answer was not recorded")
            visit.send("Still there?")
            expect(page.locator(".message.answer")).to_contain_text(GOOD)
            page.get_by_role("link", name="Data").click()
            expect(page.get_by_role("alert").first).to_contain_text("the store cannot be used for now: locked")
            page.get_by_role("link", name="Operate").click()
            expect(page.get_by_text("takes nothing: locked")).to_be_visible()
            expect(page.get_by_text("Not recorded: locked")).to_be_visible()
            other.close()
            with monkeypatch.context() as patch:
                patch.setattr(Store, "add", full)
                assert server.chat().status_code == 200
                expect(page.get_by_text("takes nothing: full")).to_be_visible()
                expect(page.get_by_text("Not recorded: full")).to_be_visible()
            (tmp_path / "winnow.db").write_bytes(b"no database at all " * 1000)
            assert server.chat().status_code == 200
            expect(page.get_by_text("takes nothing: corrupt")).to_be_visible()
            visit.complaints = [each for each in visit.complaints if "503" not in each]
            assert visit.complaints == []


EVIL = """<!doctype html><meta charset="utf-8">
<form id="form" method="post" enctype="text/plain" target="frame" action="{url}/v1/store/forget">
  <input name='{{"user": "anna", "x": "' value='"}}'>
</form><iframe name="frame"></iframe><img src="{url}/v1/store/export/sft">"""
ATTEMPTS = """async (url) => {
  document.getElementById("form").submit();
  const told = [];
  const body = JSON.stringify({user: "anna"});
  for (const [path, options] of [
    ["/v1/store/forget", {method: "POST", mode: "no-cors", body}],
    ["/v1/store/forget", {method: "POST", headers: {"Content-Type": "application/json"}, body}],
    ["/v1/store/selections", {}],
    ["/v1/store", {}],
    ["/v1/store/export/kto", {mode: "no-cors"}],
  ]) {
    told.push(await fetch(url + path, options).then((answer) => answer.type, () => "failed"));
  }
  return told;
}"""


def test_a_page_of_another_origin_can_do_nothing(browser: Browser, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Acceptance 15, in the browser: requests that it sends without asking, and those that it asks for."""
    with kept(tokenizer, tmp_path) as server, server.http as http:
        server.chat(user="anna")
        context = browser.new_context()
        page = context.new_page()
        page.route(
            "http://evil.localhost/",
            lambda route: route.fulfill(body=EVIL.format(url=server.url), content_type="text/html"),
        )
        page.goto("http://evil.localhost/")
        told = page.evaluate(ATTEMPTS, server.url)
        assert set(told) <= {"opaque", "failed"}
        assert [told[at] for at in (1, 2, 3)] == ["failed"] * 3
        page.wait_for_load_state("networkidle")
        context.close()
        found = http.get("/v1/store").json()
        assert (found["selections"], found["forgotten"], found["exports"]) == (1, 0, [])


def test_the_screens_are_the_operators_alone(browser: Browser, tokenizer: Tokenizer, tmp_path: Path) -> None:
    key = "wk-of-a-user-5d21"
    (tmp_path / "keys").write_text(f"{key} use")
    with (
        kept(tokenizer, tmp_path, found=ApiKeys.of(Settings(api_keys_file=tmp_path / "keys"))) as server,
        opened(browser, server) as visit,
    ):
        page = visit.page
        page.goto(f"{server.url}/#data")
        page.get_by_label("API key").fill(key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("link", name="Chat")).to_be_visible()
        expect(page.get_by_role("link", name="Data")).to_have_count(0)
        expect(page.get_by_role("link", name="Operate")).to_have_count(0)
        assert not any(request.url.endswith(("/v1/store", "/metrics", "/ready")) for request in visit.requests)


def test_a_server_that_keeps_nothing_says_so(browser: Browser, tokenizer: Tokenizer) -> None:
    with ScriptedServer.start(scripted(tokenizer)) as server, opened(browser, server) as visit:
        page = visit.page
        page.goto(f"{server.url}/#data")
        expect(page.get_by_text("This server keeps nothing.")).to_be_visible()
        page.goto(f"{server.url}/#operate")
        expect(page.get_by_text("This server keeps nothing.")).to_be_visible()
        assert visit.complaints == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    browser: Browser, server: ScriptedServer, scheme: Any, width: int, tmp_path: Path
) -> None:
    """640 pixels are a window of 1,280 at a zoom of 200 %."""
    with opened(browser, server, viewport={"width": width, "height": 800}, color_scheme=scheme) as visit:
        page = visit.page

        def check(name: str) -> None:
            assert accessible(page) == [], name
            page.screenshot(path=tmp_path / f"{name}-{scheme}-{width}.png", full_page=True)
            for other in (320, 640, width):
                page.set_viewport_size({"width": other, "height": 800})
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, other)

        page.goto(f"{server.url}/#operate")
        page.get_by_text("The charts as a table").click()
        check("operate")
        page.goto(f"{server.url}/#data")
        expect(page.locator(".answers li")).to_have_count(20)
        [each.click() for each in page.locator("summary:visible").all()]
        check("data")
        page.get_by_label("The user or safety_identifier").fill("nobody")
        page.get_by_role("button", name="Forget …").click()
        check("forget")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Open the answer").first.click()
        expect(page.locator(".card")).to_have_count(4)
        check("answer")


READ = """async ([first, second]) => {
  const {parsed, total, by, mean, quantile, rate} = await import("/page/metrics.js");
  const [then, now] = [parsed(first), parsed(second)];
  const of = (before, share, phase) => quantile(now, before, "seconds", {phase}, share);
  return {
    labels: now.get("escaped")[0].labels,
    total: [total(now, "requests", {status: "200"}), total(now, "requests"), total(now, "absent")],
    by: [...by(now, "requests", "route")],
    mean: [mean(now, "seconds", {phase: "a"}), mean(now, "seconds", {phase: "none"})],
    ever: [of(null, 0.5, "a"), of(null, 0.95, "a"), of(null, 0.5, "none")],
    since: [of(then, 0.5, "a"), of(now, 0.5, "a")],
    rate: [rate({at: 3000, metrics: now}, {at: 1000, metrics: then}, "requests"),
           rate({at: 3000, metrics: then}, {at: 1000, metrics: now}, "requests"),
           rate({at: 3000, metrics: now}, undefined, "requests")],
  };
}"""


def exposition(scale: int) -> str:
    """Prometheus' text of a server that has counted so many times something."""
    buckets = {"0.1": 1, "0.5": 3, "1.0": 4, "+Inf": 4 + (scale - 1)}
    return "\n".join(
        (
            "# HELP requests Requests.",
            f'requests{{route="/v1/x/{{id}}",status="200"}} {3 * scale}.0',
            f'requests{{route="/",status="500"}} {scale}',
            r'escaped{text="a\"b\\c\nd, e=\"f\"}"} 1e+01',
            *(f'seconds_bucket{{le="{le}",phase="a"}} {number * scale}' for le, number in buckets.items()),
            f'seconds_sum{{phase="a"}} {2.0 * scale}',
            f'seconds_count{{phase="a"}} {4 * scale}',
        )
    )


def test_metrics_are_read_as_prometheus_reads_them(browser: Browser, server: ScriptedServer) -> None:
    with opened(browser, server) as visit:
        found = visit.page.evaluate(READ, [exposition(1), exposition(2)])
    assert found["labels"] == {"text": 'a"b\\c\nd, e="f"}'}
    assert found["total"] == [6, 8, None]
    assert found["by"] == [["/v1/x/{id}", 6], ["/", 2]]
    assert found["mean"] == [0.5, None]
    # Of ten, two are up to 0.1, four up to 0.5, two up to 1 and two beyond: half is at the fifth, 0.1 + 0.4 * 3 / 4.
    assert found["ever"] == [pytest.approx(0.4), 1, None]
    assert found["since"] == [pytest.approx(0.1 + 0.4 * 2 / 2), None]
    assert found["rate"] == [2, None, None]
