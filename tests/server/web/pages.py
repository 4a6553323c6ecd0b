"""A scripted server and the system's Chromium, for tests of the playground as a person uses it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.fakes import ScriptedPolicy, ScriptedRewardModel
from tests.live import ScriptedServer, scripted
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Candidate, Prompt
from winnow.server.api.auth import ApiKeys, Key, Role
from winnow.server.store.opening import recorder

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no chromium in PATH (Debian: apt-get install chromium)")
WAIT_MS = 20_000


@dataclass
class TextPolicy(ScriptedPolicy):
    """Answers candidate k with `texts[k]`, in turn; all wait for `hold`."""

    texts: Sequence[str] = ("answer",)
    cancelled: list[int] = field(default_factory=list)

    async def sample(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
    ) -> Candidate:
        try:
            sampled = await super().sample(prompt, sampling, index, handle)
        except asyncio.CancelledError:
            self.cancelled.append(index)
            raise
        return dataclasses.replace(sampled, text=self.texts[index % len(self.texts)])


@dataclass
class TextReward(ScriptedRewardModel):
    """Scores the texts of a table; other texts get `otherwise`."""

    logits: Mapping[str, float] = field(default_factory=dict)
    otherwise: float = 1.0

    async def score(self, prompt: Prompt, answer: str) -> float:
        await asyncio.sleep(0)
        return self.logits.get(answer.strip(), self.otherwise)


@dataclass
class Visit:
    """A page in the browser, and what it did: its requests, its errors, and everything on its console."""

    page: Page
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, page: Page) -> Visit:
        """Watch `page` from now on."""
        visit = cls(page)
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: visit.requests.append(request))
        page.on("pageerror", lambda error: visit.complaints.append(str(error)))

        def note(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                visit.complaints.append(message.text)

        page.on("console", note)
        return visit

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The bodies of the chat requests so far."""
        chats = [request for request in self.requests if request.url.endswith("/v1/chat/completions")]
        return [json.loads(request.post_data or "{}") for request in chats]

    def send(self, text: str) -> None:
        """Write a message and send it by the keyboard."""
        self.page.get_by_label("Message").first.fill(text)
        self.page.keyboard.press("Control+Enter")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium."""
    assert CHROMIUM
    expect.set_options(timeout=WAIT_MS)  # beside engines, a page takes its time
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class opened:  # noqa: N801, reads as a function
    """A page of its own for `server`, at the view `at`."""

    def __init__(self, browser: Browser, server: ScriptedServer, at: str = "", **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.url = f"{server.url}/{at}"

    def __enter__(self) -> Visit:
        visit = Visit.of(self.context.new_page())
        visit.page.goto(self.url)
        return visit

    def __exit__(self, *_: object) -> None:
        self.context.close()


def accessible(page: Page) -> list[str]:
    """What axe finds against WCAG 2.2 AA, in short."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate(
        "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
    )
    return [f"{each['id']}: {node['html'][:120]}" for each in found["violations"] for node in each["nodes"]]


@contextlib.contextmanager
def keeping(
    tokenizer: Tokenizer,
    folder: Path,
    texts: Sequence[str],
    people: Mapping[str, set[Role]] | None = None,
    **settings: Any,
) -> Iterator[ScriptedServer]:
    """A server that records into `winnow.db` in `folder`; each of `people` has a key, `secret_of` their name."""
    rewards = TextReward(logits={texts[0].strip(): 3.0}, otherwise=2.0), TextReward(otherwise=1.0)
    values = {"store": str(folder / "winnow.db"), "record": "all", "candidates": len(texts), **settings}
    service = scripted(tokenizer, TextPolicy(texts=texts), *rewards, **values)
    found = recorder(service.settings, service.template, service.combiner)
    assert found
    known = ApiKeys(
        Key(hashlib.sha256(secret_of(name).encode()).digest(), frozenset(roles), name)
        for name, roles in (people or {}).items()
    )
    with found.running(), ScriptedServer.start(dataclasses.replace(service, recorder=found), known) as server:
        yield server


def secret_of(name: str) -> str:
    """The key of a person."""
    return f"wk-test-{name}"
