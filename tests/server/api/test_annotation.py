"""Preference collection over HTTP: roles, what an annotator is told, and that nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from tests.fakes import ScriptedRewardModel
from tests.live import ScriptedServer, scripted
from winnow.clients import schema
from winnow.models.errors import NotStored
from winnow.models.tokenizer import Tokenizer
from winnow.server.annotation import accuracy, looking, making
from winnow.server.api.auth import ApiKeys, Key, Role
from winnow.server.store.location import location
from winnow.server.store.opening import open_existing, recorder

KEYS: dict[str, tuple[Role, ...]] = {
    "anna": ("annotate",),
    "bert": ("annotate",),
    "olga": ("operate",),
    "ulf": ("use",),
    "eve": ("use", "annotate", "operate"),
}
_numbers = itertools.count()


class Client:
    """The routes of preference collection, called with the key of one person."""

    def __init__(self, server: ScriptedServer, name: str) -> None:
        self._server = server
        self._headers = {"Authorization": f"Bearer key-of-{name}"}

    def post(self, path: str, **body: Any) -> httpx.Response:
        with self._server.http as http:
            return http.post(f"/v1/annotation/{path}", json=body, headers=self._headers)

    def get(self, path: str) -> httpx.Response:
        with self._server.http as http:
            return http.get(f"/v1/annotation/{path}", headers=self._headers)

    def annotate(self, pair: dict[str, Any], **fields: Any) -> httpx.Response:
        values = {"choice": 3, "left_safe": True, "right_safe": True, "submission": f"submission-{next(_numbers)}"}
        return self.post("annotations", **{**values, "lease": pair["lease"], **fields})


@contextlib.contextmanager
def collecting(tokenizer: Tokenizer, folder: Path, answers: int = 4) -> Iterator[ScriptedServer]:
    """A server that has recorded some answers, with a key for each person in `KEYS`."""
    service = scripted(
        tokenizer,
        helpfulness=ScriptedRewardModel(lambda ids: float(ids[0])),
        store=str(folder / "winnow.db"),
        record="all",
        candidates=4,
    )
    found = recorder(service.settings, service.template, service.combiner)
    assert found
    keys = ApiKeys(
        Key(hashlib.sha256(f"key-of-{name}".encode()).digest(), frozenset(roles), name) for name, roles in KEYS.items()
    )
    with found.running(), ScriptedServer.start(replace(service, recorder=found), keys) as server, server.http as http:
        for number in range(answers):
            body = {"model": "winnow-demo", "messages": [{"role": "user", "content": f"Question {number}?"}]}
            told = http.post("/v1/chat/completions", json=body, headers={"Authorization": "Bearer key-of-ulf"})
            assert told.status_code == 200
        yield server


@pytest.fixture
def server(tokenizer: Tokenizer, tmp_path: Path) -> Iterator[ScriptedServer]:
    with collecting(tokenizer, tmp_path) as running:
        yield running


def test_a_batch_from_making_to_reports(server: ScriptedServer) -> None:
    olga, anna, bert = (Client(server, name) for name in ("olga", "anna", "bert"))
    made = schema.Batch.model_validate(olga.post("batches", name=" Week 1 ", policy="top", pairs=9, overlap=2).json())
    assert (made.name, made.pairs, made.wanted, made.closed) == ("Week 1", 4, 8, None)
    for client in (anna, bert):
        for left in range(4, 0, -1):
            told = client.post("lease").json()
            assert told["remaining"] == left
            right_has_more = told["pair"]["right"]["text"] > told["pair"]["left"]["text"]
            done = client.annotate(told["pair"], choice=6 if right_has_more else 3, active_ms=1200)
            assert (done.status_code, done.json()["remaining"]) == (200, left - 1)
        assert client.post("lease").json() == {"pair": None, "remaining": 0}
        assert client.get("mine").json() == {
            "annotations": 4,
            "batches": [{"id": made.id, "name": "Week 1", "annotated": 4, "remaining": 0}],
        }
    one = schema.Batch.model_validate(olga.get(f"batches/{made.id}").json())
    assert (one.annotations, one.annotators, one.leased) == (8, 2, 0)
    report = schema.AgreementReport.model_validate(olga.get("agreement").json())
    assert [annotator.name for annotator in report.annotators] == ["anna", "bert"]
    assert (report.all.pairs, report.position.left + report.position.right) == (4, 8)
    models = schema.RewardModelsReport.model_validate(olga.get("reward-models").json())
    helpful = next(model for model in models.models if model.kind == "helpfulness")
    assert (helpful.accuracy.value, helpful.accuracy.n, models.annotations) == (1.0, 8, 8)
    assert olga.post(f"batches/{made.id}/close").json()["closed"]
    assert olga.get("agreement?batch=batch-0").status_code == 404


def test_nothing_that_an_annotator_is_told_gives_the_answers_away(server: ScriptedServer) -> None:
    olga, anna = Client(server, "olga"), Client(server, "anna")
    assert olga.post("batches", name="Week 1", policy="margin", pairs=9).status_code == 200
    pair = anna.post("lease")
    assert set(pair.json()["pair"]) == set(schema.LeasedPair.model_fields)
    assert set(pair.json()["pair"]["left"]) == {"text"}
    told = [
        pair,
        anna.annotate(pair.json()["pair"]),
        anna.post("undo"),
        anna.get("mine"),
        anna.get("batches"),
        anna.post("skip", lease=anna.post("lease").json()["pair"]["lease"]),
    ]
    for answer in told:
        assert answer.status_code == 200
        assert not re.search(
            r"chatcmpl|score|safety_logit|combined|rank|model|winnow-demo|propensity|margin", answer.text
        )


def test_each_route_is_for_its_roles(server: ScriptedServer) -> None:
    for name, roles in KEYS.items():
        client = Client(server, name)
        for method, path, needed in (
            ("post", "guidelines", {"operate"}),
            ("get", "guidelines", {"annotate", "operate"}),
            ("post", "batches", {"operate"}),
            ("get", "batches", {"annotate", "operate"}),
            ("get", "batches/batch-0", {"operate"}),
            ("post", "batches/batch-0/close", {"operate"}),
            ("post", "pairs", {"operate"}),
            ("post", "lease", {"annotate"}),
            ("post", "annotations", {"annotate"}),
            ("post", "skip", {"annotate"}),
            ("post", "undo", {"annotate"}),
            ("get", "mine", {"annotate"}),
            ("get", "agreement", {"operate"}),
            ("get", "reward-models", {"operate"}),
        ):
            answer = client.post(path) if method == "post" else client.get(path)
            assert (answer.status_code == 403) == (not needed & set(roles)), (name, path, answer.text)


def test_annotators_see_less_of_a_batch(server: ScriptedServer) -> None:
    Client(server, "olga").post("batches", name="Week 1", policy="top", pairs=9, seed=5)
    [whole] = Client(server, "olga").get("batches").json()["data"]
    [seen] = Client(server, "anna").get("batches").json()["data"]
    assert (whole["policy"], whole["seed"], whole["skipped"]) == ("top", 5, 0)
    assert seen == {**whole, "policy": None, "seed": None, "skipped": None}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("batches", {"name": "n", "policy": "best", "pairs": 1}, "policy"),
        ("batches", {"name": "n", "policy": "top"}, "pairs"),
        ("batches", {"name": "n", "policy": "top", "pairs": 1, "user_share": 1}, "user_share"),
        ("batches", {"name": " ", "policy": "top", "pairs": 1}, "name"),
        ("batches", {"name": "a\0", "policy": "top", "pairs": 1}, "name"),
        ("batches", {"name": "n", "policy": "top", "pairs": 1, "overlap": 21}, "overlap"),
        ("batches", {"name": "n", "policy": "disagree", "pairs": 1}, "policy"),
        (
            "batches",
            {"name": "n", "policy": "given", "given": [{"completion": "x", "candidates": [1, 1]}]},
            "candidates",
        ),
        ("guidelines", {"text": ""}, "text"),
        ("guidelines", {"text": "\0"}, "text"),
        ("pairs", {"completion": "chatcmpl-0", "candidates": [0]}, "candidates"),
        ("lease", {"batch": 3}, "batch"),
        ("undo", {"x": 1}, "x"),
        ("annotations", {"choice": 9}, "submission"),
        ("skip", {"lease": "\0"}, "lease"),
    ],
)
def test_a_wrong_body_is_refused_by_the_name_of_its_field(
    server: ScriptedServer, path: str, body: dict[str, Any], param: str
) -> None:
    answer = Client(server, "eve").post(path, **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (
        400,
        "unsupported" if param in ("x", "user_share") else "invalid_request",
    )
    assert param in answer.json()["error"]["param"]


def test_a_list_of_wrong_pairs_is_refused_at_the_first() -> None:
    """Regression: thousands of errors were gathered, and no other request was served meanwhile."""
    wrong = [{"completion": 5, "candidates": ["x", "y"]}] * 10_000
    with pytest.raises(ValidationError) as caught:
        schema.NewBatch.model_validate({"name": "n", "policy": "given", "given": wrong})
    assert {error["loc"][:2] for error in caught.value.errors()} == {("given", 0)}


@pytest.mark.parametrize("id", ["batch-0", "%00", "batch-" + "0" * 16, "'%20OR%201=1", "a" * 3000])
def test_an_unknown_batch_is_a_404(server: ScriptedServer, id: str) -> None:
    eve = Client(server, "eve")
    for answer in (eve.get(f"batches/{id}"), eve.post(f"batches/{id}/close")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_stored")


def test_without_a_store_the_answer_says_how_to_have_one(tokenizer: Tokenizer) -> None:
    with ScriptedServer.start(scripted(tokenizer)) as server, server.http as http:
        answer = http.post("/v1/annotation/lease", json={})
        assert (answer.status_code, "--store" in answer.json()["error"]["message"]) == (404, True)


def test_submissions_that_race_make_one_annotation(server: ScriptedServer) -> None:
    """A double click, and a client that sends again because it got no answer."""
    Client(server, "olga").post("batches", name="Week 1", policy="top", pairs=9)
    anna = Client(server, "anna")
    pair = anna.post("lease").json()["pair"]
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(anna.annotate(pair, submission="the-same-one")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.text for answer in answers} == {answers[0].text}
    assert answers[0].status_code == 200
    assert anna.get("mine").json()["annotations"] == 1


def test_reports_and_batches_leave_serving_its_threads(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: a few of them took every thread that tokens and rewards are computed in."""
    started, go_on = threading.Semaphore(0), threading.Event()
    running: list[int] = []
    most: list[int] = []

    def held(*_: Any) -> Any:
        running.append(1)
        most.append(len(running))
        started.release()
        assert go_on.wait(20)
        running.pop()
        raise NotStored("none")

    for module, name in ((looking, "report"), (accuracy, "report"), (making, "make")):
        monkeypatch.setattr(module, name, held)
    olga = Client(server, "olga")
    asked: list[Callable[[], httpx.Response]] = [
        lambda: olga.get("agreement"),
        lambda: olga.get("reward-models"),
        lambda: olga.post("batches", name="n", policy="top", pairs=1),
    ] * 3
    with ThreadPoolExecutor(len(asked)) as callers:
        answers = [callers.submit(one) for one in asked]
        try:
            assert all(started.acquire(timeout=20) for _ in range(2))
            with server.http as http:
                body = {"model": "winnow-demo", "prompt": "Hello!"}
                told = http.post("/tokenize", json=body, headers={"Authorization": "Bearer key-of-ulf"})
            assert told.status_code == 200
        finally:
            go_on.set()
        assert [one.result().status_code for one in answers] == [404] * len(asked)
    assert max(most) == 2


def test_comments_are_redacted(server: ScriptedServer) -> None:
    Client(server, "olga").post("batches", name="Week 1", policy="top", pairs=9)
    anna = Client(server, "anna")
    pair = anna.post("lease").json()["pair"]
    told = [anna.annotate(pair, submission="the-same-one", comment="ask a.b@example.org") for _ in range(2)]
    assert [answer.status_code for answer in told] == [200, 200]
    assert anna.post("undo").json()["pair"]["earlier"]["comment"] == "ask [redacted]"


WRITER = """
import sys, time
from tests.annotated import annotate_all, desk
from winnow.server.store.location import location
from winnow.server.store.opening import open_store
from tests.annotated import NAMES
store = open_store(location(sys.argv[1]), NAMES)
for pair, accepted in annotate_all(desk(store, sys.argv[2]), lambda pair: {}):
    print(accepted.submission, flush=True)
print("end", flush=True)
time.sleep(600)
"""


def test_no_acknowledged_annotation_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    from tests.annotated import batch, filled, row

    place = str(tmp_path / "winnow.db")
    store = filled(place, *map(row, range(60)))
    batch(store, overlap=3)
    store.close()
    acknowledged: set[tuple[str, str]] = set()
    for number, lines in enumerate((3, 11, 24)):
        name = f"annotator {number}"
        process = subprocess.Popen([sys.executable, "-c", WRITER, place, name], stdout=subprocess.PIPE, text=True)
        assert process.stdout
        read = [process.stdout.readline().strip() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        acknowledged |= {(name, line) for line in [*read, *process.stdout.read().split()] if line != "end"}
        process.wait()
        process.stdout.close()
    store = open_existing(location(place))
    rows = store._database.execute(
        "SELECT name, submission FROM annotation JOIN annotator ON annotator.number = annotator"
    )
    assert acknowledged <= set(rows)
    assert len(rows) <= len(acknowledged) + 3  # each time one more at most, whose acknowledgement was not sent
    assert store._database.execute("PRAGMA integrity_check") == [("ok",)]
    [(open_places, kept)] = store._database.execute(
        "SELECT (SELECT sum(places) FROM pair), (SELECT count(*) FROM annotation)"
    )
    assert open_places == 60 * 3 - kept
    store.close()
