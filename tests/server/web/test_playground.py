"""The playground in a real browser, by mouse and by keyboard, with friendly and hostile answers."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.live import ScriptedServer, scripted, wait_until
from tests.server.web.pages import TextPolicy, TextReward, Visit, accessible, chromium, needs_chromium, opened
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.auth import ApiKeys
from winnow.server.settings import Settings

pytestmark = needs_chromium

KEY = "wk-3f9a5c0d77"
GOOD, LONG, ROME, RUDE, EMPTY = "It is Paris.", "Paris has been the capital since 987.", "Rome.", "I will hurt you.", ""
TEXTS = (ROME, GOOD, RUDE, EMPTY, LONG)
SAFETY = {RUDE: -4.0, ROME: 2.5, GOOD: 3.0, LONG: 3.3, EMPTY: 3.0}
HELPFULNESS = {GOOD: 4.0, LONG: 3.5, ROME: -4.5, EMPTY: -3.0}
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def policy() -> TextPolicy:
    return TextPolicy(texts=TEXTS)


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer, policy: TextPolicy) -> Iterator[ScriptedServer]:
    safety, helpfulness = TextReward(logits=SAFETY), TextReward(logits=HELPFULNESS)
    with ScriptedServer.start(scripted(tokenizer, policy, safety, helpfulness)) as running:
        yield running


@pytest.fixture
def visit(browser: Browser, server: ScriptedServer) -> Iterator[Visit]:
    """The page, opened; in the end it must have complained of nothing, and asked nobody but its server."""
    with opened(browser, server) as visit:
        yield visit
        assert visit.complaints == []
        assert all(request.url.startswith(f"{server.url}/") for request in visit.requests)


def answered(visit: Visit, text: str = QUESTION) -> dict[str, Any]:
    """Send a message, wait until its answer is explained, and return the server's report."""
    bodies: list[str] = []

    def listen(route: Route) -> None:
        answer = route.fetch()
        bodies.append(answer.text())
        route.fulfill(response=answer)

    visit.page.route("**/v1/chat/completions", listen)
    visit.send(text)
    expect(visit.page.get_by_text("candidates, best first").first).to_be_visible()
    visit.page.unroute("**/v1/chat/completions")
    events = [json.loads(line[6:]) for line in bodies[0].splitlines() if line.startswith("data: {")]
    (report,) = (event["best_of_n"] for event in events if "winner" in event.get("best_of_n", {}))
    return report


def cards(page: Page) -> list[int]:
    """The numbers of the candidates in the order shown."""
    return [int(card.get_attribute("data-index") or -1) for card in page.locator("#why .card").all()]


def test_a_locked_server_asks_for_a_key_and_says_when_it_is_wrong(browser: Browser, tokenizer: Tokenizer) -> None:
    keys = ApiKeys.of(Settings(api_keys=(KEY,)))
    with ScriptedServer.start(scripted(tokenizer), keys) as locked, opened(browser, locked) as visit:
        page, field = visit.page, visit.page.get_by_label("API key")
        expect(field).to_be_focused()
        field.fill("wrong-key")
        field.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("The server does not accept this key.")
        field.fill(KEY)
        field.press("Enter")
        expect(page.get_by_label("Message").first).to_be_focused()
        answered(visit)
        page.get_by_role("button", name="Copy as curl").click()
        code = page.get_by_label("Code").input_value()
        assert "$WINNOW_API_KEY" in code
        assert KEY not in code + page.content() + page.url
        assert not any(KEY in request.url for request in visit.requests)
        assert (
            page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])") == '[{},{},""]'
        )
        page.reload()
        expect(page.get_by_label("API key")).to_be_visible()


def test_cards_and_table_are_the_servers_numbers(visit: Visit) -> None:
    report, page = answered(visit), visit.page
    by_rank = sorted(report["scored"], key=lambda item: item["rank"])
    assert cards(page) == [item["index"] for item in by_rank]
    for item, card in zip(by_rank, page.locator("#why .card").all(), strict=True):
        for label, name in (("R_s", "safety"), ("R_h", "helpfulness"), ("R_c", "combined")):
            score = card.locator(f'[data-score="{label}"]')
            value = item[name]
            assert score.get_attribute("data-value") == (None if value is None else repr(value)), (item, label)
            expect(score.locator("dd").first).to_have_text("not needed" if value is None else f"{value:.3f}")
        if item["branch"] == "unsafe":
            expect(card.get_by_text(item["text"])).to_be_hidden()
            card.get_by_text("Unsafe text").click()
        expect(card.get_by_text(item["text"] or "(no text)", exact=True)).to_be_visible()
    winner = by_rank[0]
    expect(page.locator(".message.answer")).to_contain_text(winner["text"])
    expect(page.locator(".verdict")).to_contain_text(f"Candidate #{winner['index']} wins out of 16")

    page.get_by_text("The times as a table").click()
    rows = page.locator("#why table").first.locator("tbody tr").all()
    times = report["timings_ms"]
    lasts = [float(row.locator("td").nth(1).inner_text()) for row in rows]
    first, generate = times["first_candidate"], times["generate"]
    expected = [times["queue"], first, generate - first, times["score_tail"], times["total"]]
    assert lasts == pytest.approx(expected, abs=0.051)


@pytest.mark.parametrize("combiner", ["llama2", "safe_first"])
def test_the_other_combiner_ranks_as_the_server_would_without_a_request(
    visit: Visit, server: ScriptedServer, combiner: str
) -> None:
    page = visit.page
    page.get_by_text("Settings").first.click()
    page.get_by_label("Combiner").first.select_option(combiner)
    page.get_by_label("Seed").first.fill("7")
    answered(visit)
    other = "safe_first" if combiner == "llama2" else "llama2"
    before = len(visit.requests)
    page.locator("#why").get_by_label(other).check()
    expect(page.locator(".verdict")).to_contain_text(f"By {other}")
    scored = server.chat(QUESTION, seed=7, best_of_n={"combiner": other}).json()["best_of_n"]["scored"]
    assert cards(page) == [item["index"] for item in sorted(scored, key=lambda item: item["rank"])]
    assert len(visit.requests) == before


def test_after_stop_nothing_is_in_flight_and_retry_answers(
    visit: Visit, server: ScriptedServer, policy: TextPolicy
) -> None:
    page, hold = visit.page, asyncio.Event()
    policy.hold = hold
    try:
        visit.send(QUESTION)
        assert wait_until(lambda: policy.running, 20)
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_text("Stopped. The model will not see this turn.")).to_be_visible()
        expect(page.get_by_label("Message").first).to_be_focused()
        assert wait_until(lambda: not policy.running, 20)
        assert len(set(policy.cancelled)) == 16
    finally:
        policy.hold = None
        server.call(hold.set)
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_label("Message").first).to_be_focused()
    expect(page.locator(".message.answer")).to_contain_text(GOOD)
    stopped, retried = visit.bodies
    assert retried["messages"] == stopped["messages"]


def test_the_model_sees_the_dialog(visit: Visit) -> None:
    answered(visit)
    visit.send("And of Spain?")
    expect(visit.page.locator(".message.answer")).to_have_count(2)
    assert [(message["role"], message["content"]) for message in visit.bodies[1]["messages"]] == [
        ("user", QUESTION),
        ("assistant", GOOD),
        ("user", "And of Spain?"),
    ]
    expect(visit.page.get_by_role("button", name="Why this answer")).to_have_count(2)


def test_an_unsafe_answer_is_shown_on_demand(browser: Browser, tokenizer: Tokenizer) -> None:
    unsafe = TextReward(otherwise=-4.0)
    with (
        ScriptedServer.start(scripted(tokenizer, TextPolicy(texts=[RUDE]), unsafe, TextReward())) as server,
        opened(browser, server) as visit,
    ):
        answered(visit)
        message = visit.page.locator(".message.answer")
        expect(message.get_by_text(RUDE)).to_be_hidden()
        message.get_by_text("Unsafe text").click()
        expect(message.get_by_text(RUDE)).to_be_visible()
        expect(visit.page.locator(".verdict")).to_contain_text("No candidate is safe")


def test_a_refusal_of_the_servers_shows_no_text_of_a_candidate(browser: Browser, tokenizer: Tokenizer) -> None:
    service = scripted(
        tokenizer, TextPolicy(texts=[RUDE]), TextReward(otherwise=-4.0), TextReward(), when_all_unsafe="refuse"
    )
    with ScriptedServer.start(service) as server, opened(browser, server) as visit:
        answered(visit)
        expect(visit.page.locator(".message.answer")).to_contain_text("I'm sorry, but I can't help with that.")
        assert RUDE not in visit.page.content()


HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'><svg onload='window.hacked = 3'>",
    "javascript:window.hacked=4 [a](javascript:alert(1)) ![b](https://evil.test/pixel.png) <base href='https://evil.test'>",
    "ab\u202egnp.exe\u200b\u2066hidden\u2069\u0000 &lt;b&gt; {{7*7}} ${window.hacked = 5}",
    "x" * 100_000,
    "\u202e\u200b" * 50_000,
    "👩\u200d👩\u200d👧 é",
)


def test_hostile_candidates_are_text(browser: Browser, tokenizer: Tokenizer) -> None:
    scores = {text.strip(): 3.0 - 0.1 * number for number, text in enumerate(HOSTILE)}
    policy = TextPolicy(texts=HOSTILE)
    service = scripted(tokenizer, policy, TextReward(otherwise=3.0), TextReward(logits=scores), candidates="6")
    with ScriptedServer.start(service) as server, opened(browser, server) as visit:
        page = visit.page
        visit.send("<img src=x onerror='window.hacked = 6'>")
        expect(page.get_by_text("6 candidates, best first")).to_be_visible()
        shown = "\n".join(page.locator("#why .text").all_inner_texts())
        assert HOSTILE[0] in shown
        assert "ab⟨U+202E⟩gnp.exe⟨U+200B⟩⟨U+2066⟩hidden⟨U+2069⟩⟨U+0000⟩ &lt;b&gt;" in shown
        assert HOSTILE[5] in shown
        assert not re.search("[\u202e\u200b\u2066\u0000]", shown)
        for left in (1, 0):
            page.get_by_role("button", name="Show all 100,000 characters").first.click()
            expect(page.get_by_role("button", name="Show all")).to_have_count(left)
        page.get_by_label("Message").first.fill("still responsive")
        assert page.evaluate("window.hacked") is None
        assert page.locator("#why .text").locator("script, img, svg, a, base").count() == 0
        assert visit.complaints == []
        assert all(request.url.startswith(server.url) for request in visit.requests)


def test_a_refused_request_says_what_to_change(visit: Visit) -> None:
    visit.page.get_by_text("Settings").first.click()
    visit.page.get_by_label("Candidates (K)").first.fill("65")
    visit.send(QUESTION)
    expect(visit.page.locator(".message.answer .warning")).to_contain_text("64")
    expect(visit.page.get_by_role("button", name="Retry")).to_be_visible()
    visit.complaints.clear()  # the browser itself notes the status 400


def test_candidates_in_waves_say_what_they_saved(visit: Visit) -> None:
    page = visit.page
    page.get_by_text("Settings").first.click()
    page.get_by_label("In waves").first.fill("0.95")
    report = answered(visit)
    assert visit.bodies[0]["best_of_n"]["adaptive"] == {"stop": {"reward": 0.95}}
    assert report["candidates"] < report["requested"]
    expected = f"{report['candidates']} candidates were drawn in {report['waves']} wave"
    expect(page.locator(".verdict")).to_contain_text(expected)
    expect(page.locator(".verdict")).to_contain_text(f"about {report['requested_tokens']} tokens")


def test_a_comparison_differs_in_the_chosen_setting_alone(visit: Visit) -> None:
    page = visit.page
    page.get_by_text("Settings").first.click()
    page.get_by_label("Tokens at most").first.fill("32")
    page.get_by_role("link", name="Compare").click()
    page.get_by_label("Setting", exact=True).select_option("temperature")
    page.get_by_label("A: Temperature").fill("0.5")
    page.get_by_label("B: Temperature").fill("1.5")
    page.locator("#compare-prompt").fill(QUESTION)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("region", name="Both sides in numbers")).to_be_visible()
    one, other = visit.bodies
    assert (one.pop("temperature"), other.pop("temperature")) == (0.5, 1.5)
    assert one == other
    assert one["max_tokens"] == 32
    assert "store" not in one, "a server that records nothing is not told what it may record"
    assert isinstance(one["seed"], int)
    table = page.get_by_role("region", name="Both sides in numbers").locator("tbody tr")
    expect(table.first.locator("td").first).to_have_text("0.982")
    page.get_by_role("link", name="Chat").click()
    expect(page.locator("#compare-prompt")).to_be_hidden()


@pytest.mark.parametrize("line", ["data: {", "data: {}"])
def test_a_comparison_ends_though_an_answer_cannot_be_read(visit: Visit, line: str) -> None:
    """Regression: side B waited for A for good, and no other comparison could be made."""
    page = visit.page
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=200, content_type="text/event-stream", body=f"{line}\n\n"),
        times=1,
    )
    compared_at = page.get_by_role("region", name="Both sides in numbers")
    page.get_by_role("link", name="Compare").click()
    page.locator("#compare-prompt").fill(QUESTION)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("Both sides have ended.")).to_have_count(1)
    expect(page.locator("section.side").first.locator(".warning")).to_be_visible()
    expect(page.locator("section.side").last).to_contain_text(GOOD)
    page.keyboard.press("Control+Enter")
    expect(compared_at).to_be_visible()
    if line == "data: {}":
        visit.complaints.clear()  # an event of another form is a fault of the page's, which the console tells


def test_code_to_copy_is_the_same_request(
    visit: Visit, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = 'it\'s "$(id)" `id` \\ true null \u202e é 😀\n'
    answered(visit, hostile)
    page = visit.page

    def code(language: str) -> str:
        page.get_by_role("button", name=f"Copy as {language}").click()
        text = page.get_by_label("Code").input_value()
        page.get_by_role("button", name="Close").click()
        assert text.isascii()
        return text

    command = shlex.split(code("curl").replace("\\\n", ""))
    body = json.loads(command[command.index("-d") + 1])
    sent = visit.bodies[0]
    assert body["messages"] == [{"role": "user", "content": hostile}] == sent["messages"]
    assert (body["seed"], body["best_of_n"]) == (sent["seed"], {"return_candidates": True})
    assert command[2] == f"{server.url}/v1/chat/completions"
    with server.http as http:
        assert http.post("/v1/chat/completions", json=body).status_code == 200

    calls: list[dict[str, Any]] = []
    answer = types.SimpleNamespace(choices=[types.SimpleNamespace(message=types.SimpleNamespace(content=""))])
    answer.best_of_n = {"scored": []}

    def create(**fields: Any) -> types.SimpleNamespace:
        calls.append(fields)
        return answer

    def client(base_url: str, api_key: str) -> types.SimpleNamespace:
        assert (base_url, api_key) == (f"{server.url}/v1", "none")
        return types.SimpleNamespace(chat=types.SimpleNamespace(completions=types.SimpleNamespace(create=create)))

    monkeypatch.setitem(sys.modules, "openai", types.SimpleNamespace(OpenAI=client))
    exec(code("Python"), {})
    assert {**calls[0], **calls[0].pop("extra_body")} | {"extra_body": None} == {**body, "extra_body": None}


def test_keys_go_through_the_cards_and_are_off_while_one_types(visit: Visit) -> None:
    page = visit.page
    answered(visit)
    order = cards(page)
    page.keyboard.type("j?")
    expect(page.get_by_label("Message").first).to_have_value("j?")
    page.locator("#main").focus()

    def focused() -> int:
        return int(page.evaluate("document.activeElement.dataset.index ?? -1"))

    for key, at in (("j", 0), ("j", 1), ("j", 2), ("k", 1), ("k", 0), ("k", 0)):
        page.keyboard.press(key)
        assert focused() == order[at]
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    dialog.get_by_role("checkbox").uncheck()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert focused() == order[0], "focus returns to where it was"
    page.keyboard.press("j")
    assert focused() == order[0]
    page.reload()
    expect(page.get_by_label("Message").first).to_be_visible()
    page.locator("#main").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("button", name="Keyboard")).to_be_visible()
    expect(dialog).to_have_count(0)


def test_enter_that_ends_a_composition_does_not_send(visit: Visit) -> None:
    page, field = visit.page, visit.page.get_by_label("Message").first
    field.fill("にほん")
    for fields in ({"isComposing": True}, {"keyCode": 229}):
        pressed = {"key": "Enter", "ctrlKey": True, "bubbles": True, "cancelable": True, **fields}
        field.evaluate("(field, pressed) => field.dispatchEvent(new KeyboardEvent('keydown', pressed))", pressed)
    field.press("Enter")
    expect(field).to_have_value("にほん\n")
    assert visit.bodies == []
    page.keyboard.press("Control+Enter")
    expect(field).to_have_value("")
    expect(page.locator(".message.answer")).to_be_visible()
    assert len(visit.bodies) == 1


def test_a_reader_is_not_taken_away(visit: Visit, policy: TextPolicy, server: ScriptedServer) -> None:
    """Regression of others: new text scrolled a dialog to its end while someone read its start."""
    page = visit.page
    for number in range(9):
        visit.send(f"{number}\n" * 12)
        expect(page.get_by_role("button", name="Why this answer")).to_have_count(number + 1)
    dialog = page.get_by_role("region", name="Dialog")
    hold = asyncio.Event()
    policy.hold = hold
    visit.send("one more")
    assert wait_until(lambda: policy.running, 20)
    dialog.evaluate("dialog => { dialog.scrollTop = 0; }")
    page.wait_for_timeout(100)  # the event of the scrolling comes with the next frame
    policy.hold = None
    server.call(hold.set)
    expect(page.get_by_role("button", name="Why this answer")).to_have_count(10)
    assert dialog.evaluate("dialog => dialog.scrollTop") == 0


STATES: dict[str, Callable[[Visit], object]] = {
    "empty": lambda visit: expect(visit.page.get_by_label("Message").first).to_be_visible(),
    "answered": answered,
    "open": lambda visit: [each.click() for each in visit.page.locator("summary:visible").all()],
    "code": lambda visit: visit.page.get_by_role("button", name="Copy as curl").click(),
    "compared": lambda visit: compared(visit.page),
    "keys": lambda visit: visit.page.get_by_role("button", name="Keyboard").click(),
}
"""What the page can look like, one after the other, and how to get there."""


def compared(page: Page) -> None:
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Compare").click()
    page.locator("#compare-prompt").fill(QUESTION)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("region", name="Both sides in numbers")).to_be_visible()


@pytest.fixture(scope="module")
def small(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    """A server whose answers are the best of 3, for tests that look at everything."""
    rewards = TextReward(logits=SAFETY), TextReward(logits=HELPFULNESS)
    with ScriptedServer.start(scripted(tokenizer, TextPolicy(texts=TEXTS), *rewards, candidates="3")) as running:
        yield running


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing(browser: Browser, small: ScriptedServer, scheme: Any, width: int) -> None:
    with opened(browser, small, viewport={"width": width, "height": 700}, color_scheme=scheme) as visit:
        for name, reach in STATES.items():
            reach(visit)
            if name in ("empty", "open", "code", "compared"):
                assert accessible(visit.page) == [], name


def test_axe_finds_what_is_wrong(browser: Browser, small: ScriptedServer) -> None:
    with opened(browser, small) as visit:
        visit.page.get_by_label("Message").first.evaluate("field => field.labels[0].remove()")
        assert any(found.startswith("label: ") for found in accessible(visit.page))


def test_nothing_is_wider_than_the_window(browser: Browser, small: ScriptedServer) -> None:
    """640 pixels are a window of 1,280 at a zoom of 200 %."""
    with opened(browser, small, viewport={"width": 360, "height": 700}, reduced_motion="reduce") as visit:
        for name, reach in STATES.items():
            reach(visit)
            for width in (320, 360, 640, 900, 1280):
                visit.page.set_viewport_size({"width": width, "height": 700})
                assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, width)
        assert visit.complaints == []
