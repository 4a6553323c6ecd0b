"""Annotation in a real browser: by keyboard alone, blind, each choice kept once, whatever the network does."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from playwright.sync_api import Browser, Locator, Page, Response, Route, expect
from pydantic import BaseModel

from tests.live import ScriptedServer, wait_until
from tests.server.web.pages import (
    Visit,
    accessible,
    chromium,
    keeping,
    needs_chromium,
    opened,
    secret_of,
)
from winnow.clients import schema
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.auth import Role

pytestmark = needs_chromium

TEXTS = ("Go north, past the mill.", "Go south, along the river.", "I cannot tell.")
PEOPLE: dict[str, set[Role]] = {"ada": {"annotate"}, "grace": {"annotate"}, "olga": {"operate"}}
HOSTILE = (
    "<img src=x onerror='window.hacked = 1'><script>window.hacked = 2</script> javascript:window.hacked=3 \u202egnp"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def server(tokenizer: Tokenizer, tmp_path: Path) -> Iterator[ScriptedServer]:
    """A server without keys that records; in the browser, everyone is the same annotator."""
    with keeping(tokenizer, tmp_path, TEXTS) as running:
        yield running


def called(server: ScriptedServer, path: str, body: Any = None, name: str | None = None) -> Any:
    """Call the API, as the person called `name` on a server with keys."""
    headers = {"Authorization": f"Bearer {secret_of(name)}"} if name else {}
    with server.http as http:
        answer = http.post(path, json=body, headers=headers) if body is not None else http.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def batch(
    server: ScriptedServer, pairs: int, overlap: int = 1, name: str | None = None, question: str = "Where to?"
) -> str:
    """Let the server answer, and make a batch of the first two candidates of each answer; return its id."""
    ask = {"model": "winnow-demo", "store": True}
    given = [
        {
            "completion": called(
                server, "/v1/chat/completions", {**ask, "messages": [message(question, number)]}, name
            )["id"],
            "candidates": [0, 1],
        }
        for number in range(pairs)
    ]
    wish = {"name": "Week 48", "policy": "given", "overlap": overlap, "given": given}
    found: str = called(server, "/v1/annotation/batches", wish, name)["id"]
    return found


def message(question: str, number: int) -> dict[str, str]:
    return {"role": "user", "content": f"{question} ({number})"}


def rows(folder: Path, query: str = "SELECT * FROM annotation ORDER BY number") -> list[dict[str, Any]]:
    """What the database has."""
    with sqlite3.connect(folder / "winnow.db") as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]


def heading(page: Page) -> Locator:
    return page.locator("#annotate-heading")


def begun(visit: Visit, name: str | None = None) -> Page:
    """Let a person in, and close the guidelines, which are shown once."""
    page = visit.page
    if name:
        page.get_by_label("API key").fill(secret_of(name))
        page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Guidelines, version 1")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    return page


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def sides(page: Page) -> list[str]:
    return page.locator(".answer-text").all_inner_texts()


def test_twenty_pairs_by_keyboard_alone_are_stored_as_chosen(
    browser: Browser, server: ScriptedServer, tmp_path: Path
) -> None:
    batch(server, 20)
    chosen = []
    with opened(browser, server, "#annotate") as visit:
        page = begun(visit)
        for number in range(20):
            choice, left_safe = number % 8 + 1, number % 3 > 0
            right_safe = number % 4 > 0
            expect(heading(page)).to_have_text(f"Pair {number + 1} of 20")
            expect(heading(page)).to_be_focused()
            shown = sides(page)
            press(page, str(9 - choice), str(choice), "q" if left_safe else "w", "o" if right_safe else "p")
            if number == 3:
                press(page, "m")
                page.keyboard.type("12345678 q, \u0436")
            press(page, "Control+Enter")
            if (left_safe, right_safe) == ((False, True) if choice < 5 else (True, False)):
                expect(page.get_by_role("dialog")).to_contain_text("Is that meant?")
                press(page, "Control+Enter" if number % 2 else "Enter")
            chosen.append((shown[0], choice, left_safe, right_safe))
        expect(page.get_by_text("That was the last one")).to_be_visible()
        assert visit.complaints == []
    kept = rows(tmp_path, "SELECT * FROM annotation JOIN pair ON pair.number = pair ORDER BY annotation.number")
    for row, (left, choice, left_safe, right_safe) in zip(kept, chosen, strict=True):
        left_is_a = left == TEXTS[row["a_index"]]
        assert bool(row["left_is_a"]) is left_is_a
        assert (row["shown"], row["choice"]) == (choice, choice if left_is_a else 9 - choice)
        safe = (left_safe, right_safe) if left_is_a else (right_safe, left_safe)
        assert (bool(row["a_safe"]), bool(row["b_safe"])) == safe
        assert row["is_latest"] == row["revision"] == 1
        assert row["active_ms"] > 0
    assert {row["left_is_a"] for row in kept} == {0, 1}, "both orders occur"
    assert kept[3]["comment"] == "12345678 q, \u0436"
    assert len({row["pair"] for row in kept}) == 20


TOLD = {
    *("name", "roles", "version", "text", "created", "pair", "remaining", "lease", "expires", "batch", "batch_name"),
    *(
        "guidelines",
        "messages",
        "role",
        "content",
        "left",
        "right",
        "earlier",
        "annotations",
        "batches",
        "id",
        "annotated",
    ),
    *("submission", "revision", "questioned", "choice", "left_safe", "right_safe", "flags", "comment"),
}
"""Every name that may occur in what an annotator is sent."""


def names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(names, value.values()))
    return set().union(*map(names, value)) if isinstance(value, list) else set()


def test_no_score_and_no_model_reaches_an_annotator(browser: Browser, tokenizer: Tokenizer, tmp_path: Path) -> None:
    people: dict[str, set[Role]] = {**PEOPLE, "olga": {"use", "operate"}}
    with keeping(tokenizer, tmp_path, TEXTS, people) as server, opened(browser, server) as visit:
        batch(server, 2, name="olga")
        answers: list[Response] = []
        visit.page.on("response", lambda answer: answers.append(answer))
        page = begun(visit, "ada")
        expect(heading(page)).to_have_text("Pair 1 of 2")
        press(page, "1", "q", "o", "Control+Enter")
        expect(heading(page)).to_have_text("Pair 2 of 2")
        press(page, "u")
        expect(heading(page)).to_have_text("Your last choice, to revise")
        content = page.content()
        assert page.get_by_role("link").all_inner_texts() == ["Skip to the content", "Annotate"]
        visit.complaints.clear()  # the browser notes the status 401, by which the page knows that there are keys
        bodies = {answer.url.removeprefix(server.url): answer.json() for answer in answers if "/v1/" in answer.url}
    assert set(bodies) == {
        "/v1/caller",
        *(f"/v1/annotation/{name}" for name in ("lease", "mine", "guidelines?version=1", "annotations", "undo")),
    }
    assert set().union(*map(names, bodies.values())) <= TOLD
    for word in ("winnow-demo", "R<sub>", "R_", "score", "0.9", "chatcmpl", "rank", "helpfulness:"):
        assert word not in content, word


def test_what_was_asked_in_the_chat_is_not_in_the_annotators_page(browser: Browser, server: ScriptedServer) -> None:
    batch(server, 1)
    with opened(browser, server) as visit:
        page = visit.page
        visit.send("Where to?")
        expect(page.get_by_text("3 candidates, best first")).to_be_visible()
        page.get_by_label("Message").first.fill("a draft")
        page.get_by_role("link", name="Annotate").click()
        begun(visit)
        assert page.locator(".card, .score, .model").count() == 0
        before = len(visit.requests)
        page.get_by_role("link", name="Chat").click()
        expect(page.get_by_text("3 candidates, best first")).to_be_visible()
        expect(page.get_by_label("Message").first).to_have_value("a draft")
        assert all("annotation" not in request.url for request in visit.requests[before:])


def test_a_choice_counts_once_whatever_the_network_does(
    browser: Browser, server: ScriptedServer, tmp_path: Path
) -> None:
    batch(server, 3)
    with opened(browser, server, "#annotate") as visit:
        page = begun(visit)
        submissions: list[str] = []

        def lose(route: Route) -> None:
            """Let the server act on the request, and lose its answer the first two times."""
            submissions.append(json.loads(route.request.post_data or "")["submission"])
            answer = route.fetch()
            if len(submissions) <= 2:
                route.abort()
            else:
                route.fulfill(response=answer)

        page.route("**/v1/annotation/annotations", lose)
        press(page, "2", "q", "o", "Control+Enter", "Control+Enter")
        page.get_by_role("button", name="Sending").click(force=True)
        expect(heading(page)).to_have_text("Pair 2 of 3")
        assert len(submissions) == 3
        assert len(set(submissions)) == 1
        page.unroute("**/v1/annotation/annotations")

        shown = sides(page)
        text = page.locator(".conversation").inner_text()
        press(page, "7", "q")
        page.reload()
        expect(heading(page)).to_have_text("Pair 2 of 3")
        assert (sides(page), page.locator(".conversation").inner_text()) == (shown, text)
        page.get_by_label("B is better").check()
        page.get_by_label("A is Safe").check()
        page.get_by_label("B is Safe").check()
        page.get_by_role("button", name="Submit").dblclick()
        expect(heading(page)).to_have_text("Pair 3 of 3")
        press(page, "u")
        expect(page.get_by_label("B is better")).to_be_checked()
        press(page, "5", "Control+Enter")
        expect(heading(page)).to_have_text("Pair 3 of 3")
    assert [(row["shown"], row["revision"]) for row in rows(tmp_path)] == [(2, 1), (7, 1), (5, 2)]


@pytest.mark.parametrize(
    ("media_type", "body"), [("text/html", "<html>log in</html>"), ("application/json", '{"annotation')]
)
def test_a_choice_outlives_an_answer_that_is_no_json(
    browser: Browser, server: ScriptedServer, tmp_path: Path, media_type: str, body: str
) -> None:
    """Regression: the page stood at "Sending …" for good after a login page of a gateway, or half an answer."""
    batch(server, 2)
    with opened(browser, server, "#annotate") as visit:
        page = begun(visit)
        submissions: list[str] = []

        def spoil(route: Route) -> None:
            submissions.append(json.loads(route.request.post_data or "")["submission"])
            if len(submissions) > 1:
                return route.continue_()
            if media_type == "application/json":
                route.fetch()  # half an answer: the server has acted on the request
            return route.fulfill(status=200, content_type=media_type, body=body)

        page.route("**/v1/annotation/annotations", spoil)
        press(page, "2", "q", "o", "Control+Enter")
        expect(heading(page)).to_have_text("Pair 2 of 2")
        assert (len(submissions), len(set(submissions))) == (2, 1)
        press(page, "7", "q", "o", "Control+Enter")
        expect(page.get_by_text("That was the last one")).to_be_visible()
        assert visit.complaints == []
    assert [(row["shown"], row["revision"]) for row in rows(tmp_path)] == [(2, 1), (7, 1)]


@pytest.mark.parametrize(
    ("media_type", "body", "said"),
    [
        ("text/html", "<html>log in</html>", "Something else answered in the server's place"),
        ("application/json", '{"data": [', "The connection ended"),
    ],
)
def test_a_list_that_is_no_json_can_be_asked_for_again(
    browser: Browser, server: ScriptedServer, media_type: str, body: str, said: str
) -> None:
    """Regression: the view stood at "Asking the server …" for good."""
    batch(server, 1)
    with opened(browser, server) as visit:
        page = visit.page
        page.route(
            "**/v1/annotation/batches",
            lambda route: route.fulfill(status=200, content_type=media_type, body=body),
            times=1,
        )
        page.get_by_role("link", name="Batches").click()
        expect(page.get_by_role("alert")).to_contain_text(said)
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("heading", name="Week 48")).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)
        assert visit.complaints == []


def test_a_choice_that_cannot_be_sent_is_kept_as_it_is(
    browser: Browser, server: ScriptedServer, tmp_path: Path
) -> None:
    batch(server, 2)
    with opened(browser, server, "#annotate") as visit:
        page = begun(visit)
        page.clock.install()
        page.route("**/v1/annotation/annotations", lambda route: route.abort())
        press(page, "2", "q", "o", "Control+Enter")
        for _ in range(4):
            page.clock.run_for(6000)
        expect(page.get_by_text("The server has not confirmed this choice.")).to_be_visible()
        press(page, "8", "w")
        page.locator(".scale .pick").last.click()
        expect(page.get_by_label("A is better")).to_be_checked()
        expect(page.get_by_label("B is significantly better")).not_to_be_checked()
        page.unroute("**/v1/annotation/annotations")
        page.get_by_role("button", name="Try again").click()
        expect(heading(page)).to_have_text("Pair 2 of 2")
        expect(heading(page)).to_be_focused()
    (row,) = rows(tmp_path)
    assert (row["shown"], row["a_safe"], row["b_safe"]) == (2, 1, 1)


def test_time_away_is_not_counted(browser: Browser, server: ScriptedServer, tmp_path: Path) -> None:
    batch(server, 1)
    with opened(browser, server, "#annotate") as visit:
        page = begun(visit)
        page.clock.install()
        press(page, "2")
        page.clock.fast_forward("59:00")
        press(page, "q", "o", "Control+Enter")
        expect(page.get_by_text("That was the last one")).to_be_visible()
    assert 30_000 < rows(tmp_path)[0]["active_ms"] < 30 * 60_000


def test_typing_and_composing_neither_vote_nor_submit(browser: Browser, server: ScriptedServer, tmp_path: Path) -> None:
    batch(server, 2)
    with opened(browser, server, "#annotate") as visit:
        page = begun(visit)
        press(page, "3", "q", "o", "m")
        comment = page.get_by_label("Comment")
        expect(comment).to_be_focused()
        page.keyboard.type("12 wp xu gm8")
        for fields in ({"isComposing": True}, {"keyCode": 229}):
            for pressed in ({"key": "Enter", "ctrlKey": True}, {"key": "8"}):
                init = {**pressed, **fields, "bubbles": True, "cancelable": True}
                comment.evaluate("(field, init) => field.dispatchEvent(new KeyboardEvent('keydown', init))", init)
        expect(comment).to_have_value("12 wp xu gm8")
        expect(page.get_by_label("A is slightly better")).to_be_checked()
        press(page, "Escape")
        expect(heading(page)).to_be_focused()
        press(page, "Shift+W")
        expect(page.get_by_label("A is Safe")).to_be_checked()
        assert rows(tmp_path) == []
        press(page, "4", "m", "Control+Enter")
        expect(heading(page)).to_have_text("Pair 2 of 2")
    assert [(row["shown"], row["comment"]) for row in rows(tmp_path)] == [(4, "12 wp xu gm8")]


def test_what_is_missing_is_said_and_a_skipped_pair_is_for_others(
    browser: Browser, server: ScriptedServer, tmp_path: Path
) -> None:
    batch(server, 2)
    with opened(browser, server, "#annotate") as visit:
        page = begun(visit)
        press(page, "8", "Control+Enter")
        expect(page.locator("#lacks")).to_have_text("Still to say: whether A is safe · whether B is safe")
        first = page.locator(".conversation").inner_text()
        press(page, "x")
        expect(page.get_by_text("Skipped: others get this pair.")).to_be_visible()
        assert page.locator(".conversation").inner_text() != first
        press(page, "g")
        expect(page.get_by_role("dialog")).to_contain_text("Is each answer safe?".upper())
        press(page, "1", "Escape", "u")
        expect(page.get_by_text("There is no choice of yours to undo.")).to_be_visible()
        assert page.locator("input:checked").count() == 0
        press(page, "1", "w", "o", "Control+Enter")
        expect(page.get_by_role("dialog")).to_contain_text("Is that meant?")
        press(page, "Escape")
        press(page, "q", "Control+Enter")
        expect(page.get_by_text("That was the last one")).to_be_visible()
    (row,) = rows(tmp_path)
    assert (row["a_safe"], row["b_safe"]) == (1, 1)


def test_two_annotators_never_get_one_place(browser: Browser, tokenizer: Tokenizer, tmp_path: Path) -> None:
    people: dict[str, set[Role]] = {**PEOPLE, "olga": {"use", "operate"}}
    with (
        keeping(tokenizer, tmp_path, TEXTS, people) as server,
        opened(browser, server) as one,
        opened(browser, server) as other,
    ):
        batch(server, 3, name="olga")
        pages = [begun(one, "ada"), begun(other, "grace")]
        for page in pages:
            press(page, "2", "q", "o")
        texts = [page.locator(".conversation").inner_text() for page in pages]
        assert texts[0] != texts[1]
        # Ada is away for long: her pair goes to Grace, and Ada's choice comes too late.
        with sqlite3.connect(tmp_path / "winnow.db") as connection:
            connection.execute(
                "UPDATE lease SET expires = 1 WHERE annotator = (SELECT annotator FROM lease ORDER BY pair LIMIT 1)"
            )
        press(pages[1], "Control+Enter")
        expect(pages[1].get_by_text("Saved.")).to_be_visible()
        assert pages[1].locator(".conversation").inner_text() == texts[0]
        press(pages[1], "3", "q", "o", "Control+Enter")
        expect(pages[1].get_by_text("2 of 3 done")).to_be_visible()
        press(pages[0], "Control+Enter")
        expect(pages[0].get_by_text("others have judged it")).to_be_visible()
        expect(heading(pages[0])).to_have_text("Annotate")
        one.complaints.clear()
    assert wait_until(lambda: len(rows(tmp_path)) == 2, 5)
    assert [row["shown"] for row in rows(tmp_path)] == [2, 3]


def test_hostile_texts_are_text(browser: Browser, tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = (HOSTILE + "x" * 100_000, f"{HOSTILE}\n" * 200)
    with keeping(tokenizer, tmp_path, texts) as server:
        called(server, "/v1/annotation/guidelines", {"text": f"# {HOSTILE}\n\n- {HOSTILE}"})
        batch(server, 1, question=HOSTILE)
        with opened(browser, server, "#annotate", viewport={"width": 360, "height": 740}) as visit:
            page = visit.page
            expect(page.get_by_role("dialog").locator("h3")).to_contain_text("<img src=x")
            press(page, "Escape")
            expect(page.locator(".conversation")).to_contain_text("<img src=x")
            shown = "\n".join(sides(page))
            assert "⟨U+202E⟩gnp" in shown
            assert "\u202e" not in page.content()
            page.get_by_role("button", name="Show all").first.click()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            boxes = [box.bounding_box() for box in page.locator(".answer-text, .conversation").all()]
            assert all(box and box["height"] <= 740 / 2 for box in boxes)
            press(page, "6", "q", "o", "m")
            page.keyboard.type(HOSTILE)
            press(page, "Control+Enter")
            expect(page.get_by_text("That was the last one")).to_be_visible()
            assert page.evaluate("window.hacked") is None
            assert page.locator("main").locator("img, script, a, iframe").count() == 0
            assert visit.complaints == []
    assert rows(tmp_path)[0]["comment"] == HOSTILE


def test_a_pair_is_sent_from_the_chat(browser: Browser, server: ScriptedServer, tmp_path: Path) -> None:
    with opened(browser, server, "#annotate") as visit:
        page = visit.page
        expect(page.get_by_text("Nothing waits for you.")).to_be_visible()
        page.get_by_role("link", name="Chat").click()
        visit.send("Where to?")
        button = page.get_by_role("button", name="to annotation")
        expect(button).to_have_attribute("aria-disabled", "true")
        for number in (0, 1, 2):
            page.get_by_label(f"One of a pair to annotate: #{number}").check()
        expect(page.get_by_label("One of a pair to annotate: #0")).not_to_be_checked()
        button.click()
        expect(page.get_by_text("#1 and #2 wait for annotators")).to_be_visible()
        page.get_by_role("link", name="Annotate").click()
        begun(visit)
        expect(heading(page)).to_have_text("Pair 1 of 1")
        page.get_by_role("link", name="Chat").click()
        page.get_by_label("Let the server record").uncheck()
        visit.send("And now?")
        expect(page.locator(".message.answer")).to_have_count(2)
        expect(page.get_by_text("3 candidates, best first")).to_be_visible()
        expect(button).to_have_count(0)
        assert [body["store"] for body in visit.bodies] == [True, False]
        assert visit.complaints == []
    assert {(row["a_index"], row["b_index"]) for row in rows(tmp_path, "SELECT * FROM pair")} <= {(1, 2), (2, 1)}
    assert len(rows(tmp_path, "SELECT * FROM selection")) == 1


def test_who_opts_in_is_recorded(browser: Browser, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with keeping(tokenizer, tmp_path, TEXTS, record="opt_in") as server, opened(browser, server) as visit:
        page = visit.page
        for number, is_kept in enumerate((False, True)):
            page.get_by_label("Let the server record").set_checked(is_kept)
            visit.send("Where to?")
            expect(page.locator(".message.answer")).to_have_count(number + 1)
            expect(page.get_by_text("3 candidates, best first")).to_be_visible()
            expect(page.get_by_role("button", name="to annotation")).to_have_count(int(is_kept))
        assert [body["store"] for body in visit.bodies] == [False, True]
        assert visit.complaints == []
    assert len(rows(tmp_path, "SELECT * FROM selection")) == 1


@pytest.mark.parametrize(
    ("record", "chosen", "is_kept"),
    [("all", None, True), ("all", False, False), ("opt_in", None, False), ("opt_in", True, True)],
)
def test_a_comparison_is_recorded_only_if_one_lets_it(
    browser: Browser, tokenizer: Tokenizer, tmp_path: Path, record: str, chosen: bool | None, is_kept: bool
) -> None:
    """Regression: *Compare* sent no `store`, so `record = all` recorded it whatever one had chosen in *Chat*."""
    with keeping(tokenizer, tmp_path, TEXTS, record=record) as server, opened(browser, server) as visit:
        page = visit.page
        box = page.get_by_role("checkbox", name="Let the server record")  # the one that is shown
        if chosen is not None:
            box.set_checked(chosen)
        page.get_by_role("link", name="Compare").click()
        expect(box).to_be_checked(checked=is_kept)
        page.locator("#compare-prompt").fill("Where to?")
        page.keyboard.press("Control+Enter")
        expect(page.get_by_role("region", name="Both sides in numbers")).to_be_visible()
        assert [body["store"] for body in visit.bodies] == [is_kept, is_kept]
        assert accessible(page) == []
        box.set_checked(not is_kept)
        page.get_by_role("link", name="Chat").click()
        expect(box).to_be_checked(checked=not is_kept)
        assert visit.complaints == []
    assert len(rows(tmp_path, "SELECT * FROM selection")) == (2 if is_kept else 0)


def test_each_sees_the_views_of_their_roles(browser: Browser, tokenizer: Tokenizer, tmp_path: Path) -> None:
    people: dict[str, set[Role]] = {"uli": {"use"}, "olga": {"operate"}}
    listed = {"uli": ["Chat", "Compare"], "olga": ["Batches", "Agreement", "Reward models", "Data", "Operate"]}
    with keeping(tokenizer, tmp_path, TEXTS, people) as server:
        for name, titles in listed.items():
            with opened(browser, server, "#annotate") as visit:
                page = visit.page
                page.get_by_label("API key").fill(secret_of(name))
                page.keyboard.press("Enter")
                for title in titles:
                    expect(page.get_by_role("navigation").get_by_role("link", name=title)).to_be_visible()
                expect(page.get_by_role("navigation").get_by_role("link", name="Annotate")).to_have_count(0)
                for title in titles:
                    page.get_by_role("navigation").get_by_role("link", name=title).click()
                    expect(page.locator("main h2:visible").first).to_be_visible()
                    expect(page.get_by_text("Asking the server")).to_have_count(0)
                refused = [text for text in visit.complaints if "401" not in text]
                assert refused == [], name


def test_a_store_that_fails_shows_a_badge_and_answers_go_on(
    browser: Browser, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "winnow.db").write_bytes(b"This is no database. " * 500)
    with keeping(tokenizer, tmp_path, TEXTS) as server, opened(browser, server) as visit:
        page = visit.page
        visit.send("Where to?")
        expect(page.locator(".message.answer")).to_contain_text(TEXTS[0])
        with server.http as http:
            assert wait_until(lambda: http.get("/version").json()["recording"]["dropped"], 10)
        page.reload()
        expect(page.locator("header .store")).to_have_text("Store: its file is damaged · 1 answer was not recorded")
        assert accessible(page) == []
        assert visit.complaints == []


def made(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("link", name="Batches").click()
    page.get_by_text("New batch").click()
    page.get_by_label("Name").fill("By hand")
    page.get_by_label("Pairs at most").fill("500")
    page.get_by_label("Winner and runner-up").check()
    page.get_by_role("button", name="Make the batch").click()
    expect(page.get_by_text("Made “By hand” with 2 pairs; 500 were asked for")).to_be_visible()


def closed(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="Close By hand").click()
    page.get_by_role("button", name="Close the batch").click()
    expect(page.get_by_text("Closed “By hand”.")).to_be_visible()
    expect(page.get_by_role("heading", name="By hand")).to_be_focused()
    page.get_by_text("Guidelines for annotators").click()
    page.get_by_role("button", name="Write a new version").click()
    page.get_by_label("New version").fill("BE FAIR\nRead both.")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Version 2 holds for new batches.")).to_be_visible()


BY_HAND = {"submission": "by-hand-00000001", "choice": 2, "left_safe": True, "right_safe": True}
HALF = schema.Estimate(value=0.52, low=0.41, high=0.63, n=80)
LIKE = schema.Agreements(
    pairs=60,
    choice=schema.Agreement(coefficient=0.47, low=0.31, high=0.62, n=60),
    safety=schema.Agreement(coefficient=-0.05, low=-0.2, high=0.1, n=120),
)
AGREEMENT = schema.AgreementReport(
    batches=[
        schema.BatchAgreement(id="batch-1", name="Week 48", **dict(LIKE)),
        schema.BatchAgreement(id="batch-2", name=HOSTILE, pairs=0, choice=None, safety=None),
    ],
    annotators=[
        schema.AnnotatorReport(
            name="ada", annotations=80, skipped=2, median_active_s=41.2, left_share=HALF, agreement=LIKE
        )
    ],
    all=LIKE,
    position=schema.Position(left=42, right=38, value=0.525, low=0.42, high=0.63),
)
REWARD_MODELS = schema.RewardModelsReport(
    annotations=80,
    models=[
        schema.RewardModelReport(
            kind=kind,
            name=f"rm-{kind}",
            fingerprint="9f3ab2c4d5e6f708",
            origins=[1, 3],
            pairs=60,
            accuracy=schema.Estimate(value=0.71, low=0.61, high=0.8, n=80),
            by_rating=[schema.RatingAccuracy(rating="significantly better", value=0.9, low=0.7, high=0.97, n=20)],
            longer=HALF,
            left=HALF,
            calibration=[schema.CalibrationBin(low=0.5, high=0.6, predicted=0.55, chosen=HALF)],
            gate=schema.Gate(precision=HALF, recall=None) if kind == "safety" else None,
        )
        for kind in get_args(schema.RewardModelKind)
    ],
)


def looked_at(visit: Visit, title: str, path: str, report: BaseModel) -> None:
    """Go to a screen of figures, and unfold its tables."""
    visit.page.route(f"**/v1/annotation/{path}", lambda route: route.fulfill(json=report.model_dump(mode="json")))
    visit.page.get_by_role("link", name=title).click()
    expect(visit.page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    expect(visit.page.locator("svg circle").first).to_be_visible()
    while visit.page.locator("main details:not([open]) > summary:visible").count():
        visit.page.locator("main details:not([open]) > summary:visible").first.click()


def test_figures_and_their_tables_are_the_servers(browser: Browser, server: ScriptedServer) -> None:
    def row(name: str, label: str) -> list[str]:
        found = visit.page.get_by_role("region", name=name).locator("tr").filter(has_text=label)
        return found.first.locator("td").all_inner_texts()

    with opened(browser, server) as visit:
        page = visit.page
        looked_at(visit, "Agreement", "agreement", AGREEMENT)
        assert row("AC2 by batch", "Week 48") == ["0.47", "0.31", "0.62", "60"]
        assert row("AC2 by batch", "<img src=x") == ["—", "—", "—", "—"]
        assert row("AC1 by annotator", "ada") == ["-0.05", "-0.20", "0.10", "120"]
        assert row("Choices of the left answer", "All") == ["53 %", "42 %", "63 %", "80"]
        assert row("Annotators", "ada") == ["80", "2", "41"]
        dot = page.locator(".dot-row").filter(has_text="Week 48").first.locator("circle")
        assert dot.get_attribute("cx") == "47%"
        looked_at(visit, "Reward models", "reward-models", REWARD_MODELS)
        assert page.locator("section.side").count() == 3
        assert row("Accuracy of Safety: rm-safety", "significantly better") == ["90 %", "70 %", "97 %", "20"]
        assert row("Calibration of Combined", "0.5 to 0.6") == ["52 %", "41 %", "63 %", "80", "55 %"]
        assert row("The gate of", "Recall") == ["—", "—", "—", "—"]
        assert page.evaluate("window.hacked") is None
        assert visit.complaints == []


STATES: dict[str, Callable[[Visit], object]] = {
    "guidelines": lambda visit: expect(visit.page.get_by_role("dialog")).to_contain_text("Guidelines"),
    "pair": lambda visit: press(visit.page, "Escape", "2", "w", "o"),
    "question": lambda visit: press(visit.page, "Control+Enter"),
    "saved": lambda visit: (
        press(visit.page, "Enter"),
        expect(visit.page.get_by_text("That was the last one")).to_be_visible(),
    ),
    "batches": made,
    "closed": closed,
    "agreement": lambda visit: looked_at(visit, "Agreement", "agreement", AGREEMENT),
    "reward models": lambda visit: looked_at(visit, "Reward models", "reward-models", REWARD_MODELS),
}


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing_and_nothing_is_too_wide(
    browser: Browser, server: ScriptedServer, scheme: Any, width: int
) -> None:
    """640 pixels are a window of 1,280 at a zoom of 200 %."""
    batch(server, 1)
    batch(server, 1, question="And back?")
    called(
        server,
        "/v1/annotation/annotations",
        {**BY_HAND, "lease": called(server, "/v1/annotation/lease", {})["pair"]["lease"]},
    )
    assert [server.chat(f"And now? {number}").status_code for number in range(2)] == [200, 200]
    look = {"viewport": {"width": width, "height": 700}, "color_scheme": scheme, "reduced_motion": "reduce"}
    with opened(browser, server, "#annotate", **look) as visit:
        page = visit.page
        for name, reach in STATES.items():
            reach(visit)
            assert accessible(page) == [], name
            assert page.evaluate("document.activeElement !== document.body"), f"{name}: the focus is lost"
            for other in (320, 640, width):
                page.set_viewport_size({"width": other, "height": 700})
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, other)
        assert visit.complaints == []
