"""The contract of preference collection, the same for SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.annotated import NAMES, NOW, annotate_all, batch, choice, desk, filled, row
from winnow.clients.schema import GivenPair, LeasedPair
from winnow.models.errors import LeaseExpired, NotStored, RequestError
from winnow.server.annotation import batches, guidelines
from winnow.server.annotation.making import send
from winnow.server.annotation.work import LEASE_SECONDS
from winnow.server.store.annotation_rows import Judged
from winnow.server.store.location import location
from winnow.server.store.opening import open_store
from winnow.server.store.store import Store

THEN = NOW + 100
"""After the last answer."""


def leased(store: Store, name: str = "anna", now: int = THEN) -> LeasedPair:
    pair = desk(store, name, now).lease().pair
    assert pair
    return pair


def judged(store: Store) -> list[Judged]:
    return list(store.annotations.judged())


def test_a_choice_is_kept_in_canonical_order_whichever_side_it_was_on(place: str) -> None:
    store = filled(place, *map(row, range(12)))
    made = batch(store, overlap=2)
    assert (made.pairs, made.wanted) == (12, 24)
    shown: dict[str, set[tuple[str, str]]] = {}
    for name in ("anna", "bert"):
        for pair, accepted in annotate_all(
            desk(store, name, THEN), lambda pair: {"choice": 1 if pair.left.text < pair.right.text else 8}
        ):
            shown.setdefault(str(sorted((pair.left.text, pair.right.text))), set()).add(
                (pair.left.text, pair.right.text)
            )
            assert (accepted.revision, accepted.questioned) == (1, False)
    assert all(len(orders) == 2 for orders in shown.values())  # the second sees the mirror image of the first
    rows = judged(store)
    assert len(rows) == 24
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert (first.pair, first.choice, first.left_is_a) == (second.pair, second.choice, not second.left_is_a)
        assert {first.shown, second.shown} == {1, 8}
        assert first.shown == (first.choice if first.left_is_a else 9 - first.choice)
    assert {one.left_is_a for one in rows[::2]} == {True, False}
    store.close()


def test_safety_goes_with_the_answer(place: str) -> None:
    store = filled(place, *map(row, range(8)))
    batch(store, overlap=2)
    for name in ("anna", "bert"):
        for pair, accepted in annotate_all(
            desk(store, name, THEN),
            lambda pair: {"choice": 3, "left_safe": pair.left.text < pair.right.text, "right_safe": True},
        ):
            assert accepted.questioned == (pair.left.text > pair.right.text)
    rows = judged(store)
    assert {(one.shown, one.is_questioned) for one in rows} == {(3, True), (3, False)}
    for one in rows:
        assert (one.a_safe if one.left_is_a else one.b_safe) != one.is_questioned
        assert one.b_safe if one.left_is_a else one.a_safe
    store.close()


def test_a_submission_counts_once(place: str) -> None:
    store = filled(place, row(1), row(2))
    batch(store)
    pair = leased(store)
    told = choice(pair, comment="why", flags=["same", "both_bad"])
    first = desk(store, now=THEN).annotate(told)
    assert desk(store, now=THEN + 10 * LEASE_SECONDS).annotate(told) == first
    with pytest.raises(RequestError, match="another choice"):
        desk(store, now=THEN).annotate(told.model_copy(update={"choice": 7}))
    with pytest.raises(LeaseExpired):
        desk(store, now=THEN).annotate(choice(pair))  # the lease was used
    with pytest.raises(LeaseExpired):
        desk(store, "bert", THEN).annotate(told)  # it is not theirs
    [one] = judged(store)
    assert (one.comment, one.flags, one.revision) == ("why", ("both_bad", "same"), 1)
    store.close()


def test_an_open_lease_is_given_again_and_an_expired_one_goes_to_others(place: str) -> None:
    store = filled(place, row(1))
    batch(store)
    pair = leased(store)
    assert leased(store, now=THEN + LEASE_SECONDS - 1) == pair
    assert desk(store, "bert", THEN + LEASE_SECONDS - 1).lease().pair is None
    theirs = leased(store, "bert", THEN + LEASE_SECONDS)
    with pytest.raises(LeaseExpired):
        desk(store, now=THEN + LEASE_SECONDS).annotate(choice(pair))  # the pair is another's now
    assert desk(store, now=THEN + LEASE_SECONDS).lease().pair is None
    again = leased(store, now=THEN + 2 * LEASE_SECONDS)  # bert has let it expire as well
    desk(store, now=THEN + 4 * LEASE_SECONDS).annotate(choice(again))  # late, but nobody else holds it
    with pytest.raises(LeaseExpired):
        desk(store, "bert", THEN + 4 * LEASE_SECONDS).annotate(choice(theirs))
    assert len(judged(store)) == 1
    store.close()


def test_a_skipped_pair_goes_to_others_and_not_back(place: str) -> None:
    store = filled(place, row(1))
    made = batch(store)
    pair = leased(store)
    assert desk(store, now=THEN).lease().remaining == 1
    assert desk(store, now=THEN).skip(pair.lease, "not for me").remaining == 0
    assert desk(store, now=THEN).lease().pair is None
    with pytest.raises(LeaseExpired):
        desk(store, now=THEN).skip(pair.lease, "")
    assert leased(store, "bert")
    assert batches.one(store, made.id, THEN).skipped == 1
    store.close()


def test_an_undone_choice_is_revised_and_the_newest_counts(place: str) -> None:
    store = filled(place, row(1), row(2))
    batch(store, overlap=2)
    assert desk(store, now=THEN).undo().pair is None
    first = leased(store)
    desk(store, now=THEN).annotate(choice(first, choice=2, left_safe=False, comment="hm"))
    again = desk(store, now=THEN).undo().pair
    assert again
    assert again.earlier
    assert (again.left, again.right, again.messages) == (first.left, first.right, first.messages)
    assert (again.earlier.choice, again.earlier.left_safe, again.earlier.comment) == (2, False, "hm")
    assert leased(store) == again  # it comes before the next pair, also after a reload
    accepted = desk(store, now=THEN).annotate(choice(again, choice=7))
    assert (accepted.revision, accepted.annotated, accepted.remaining) == (2, 1, 1)
    [one] = judged(store)
    assert (one.revision, one.shown) == (2, 7)
    unsure = desk(store, now=THEN).undo().pair
    assert unsure
    assert unsure.earlier
    assert unsure.earlier.choice == 7
    desk(store, now=THEN).skip(unsure.lease, "it was right")  # keeps what there is
    assert len(judged(store)) == 1
    assert leased(store).messages != first.messages
    store.close()


@pytest.mark.parametrize("overlap", [1, 2])
def test_annotators_who_race_never_exceed_the_overlap(place: str, overlap: int) -> None:
    store = filled(place, *map(row, range(6)))
    batch(store, overlap=overlap)
    errors: list[BaseException] = []

    def work(name: str) -> None:
        own = open_store(location(place), NAMES)
        try:
            for _ in annotate_all(desk(own, name, THEN), lambda pair: {}):
                pass
        except BaseException as error:
            errors.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=work, args=(f"annotator {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    rows = judged(store)
    assert len(rows) == 6 * overlap == len({(one.pair, one.annotator) for one in rows})
    assert set(Counter(one.pair for one in rows).values()) == {overlap}
    balance = {pair: sum(one.left_is_a for one in rows if one.pair == pair) for pair in {one.pair for one in rows}}
    assert overlap == 1 or set(balance.values()) == {1}
    store.close()


def test_a_pair_that_is_sent_while_two_hold_it_goes_to_neither_twice(place: str) -> None:
    """Of four annotators with a wish for one pair, as many get it as it has places."""
    store = filled(place, row(1))
    made = batch(store, overlap=3)
    got = [desk(store, name, THEN).lease().pair for name in ("a", "b", "c", "d")]
    assert [pair is not None for pair in got] == [True, True, True, False]
    assert batches.one(store, made.id, THEN).leased == 3
    for name, pair in zip(("a", "b", "c"), got, strict=False):
        assert pair
        desk(store, name, THEN).annotate(choice(pair))
    told = batches.one(store, made.id, THEN)
    assert (told.leased, told.annotations, told.annotators, told.wanted) == (0, 3, 3, 3)
    store.close()


def test_a_closed_batch_gives_nothing_out_and_takes_what_is_held(place: str) -> None:
    store = filled(place, row(1), row(2))
    made = batch(store)
    pair = leased(store)
    assert batches.close(store, made.id, THEN).closed == batches.close(store, made.id, THEN + 1).closed == THEN
    assert desk(store, "bert", THEN).lease().pair is None
    assert desk(store, now=THEN).annotate(choice(pair)).remaining == 0
    assert desk(store, now=THEN).lease(made.id).pair is None
    with pytest.raises(NotStored):
        desk(store, now=THEN).lease("batch-0")
    mine = desk(store, now=THEN).mine()
    assert (mine.annotations, [(one.id, one.annotated, one.remaining) for one in mine.batches]) == (
        1,
        [(made.id, 1, 0)],
    )
    undone = desk(store, now=THEN).undo()
    assert (undone.pair is not None, undone.remaining) == (True, 0)
    store.close()


def test_pairs_and_annotations_go_with_their_answers(place: str) -> None:
    store = filled(place, row(1, user="anna"), row(2), replace(row(3), expires=THEN + 1), row(4))
    batch(store)
    for _ in annotate_all(desk(store, now=THEN), lambda pair: {"comment": "about what was said"}):
        pass
    assert store.counts(THEN).annotations == 4
    assert store.annotations.of_selections([1, 2, 9]) == {1: 1, 2: 1}
    assert store.prune(THEN + 1) == 1
    assert store.counts(THEN).annotations == 3
    assert store.delete(row(4).id)
    assert store.counts(THEN).annotations == 2
    assert store.forget(NAMES.of_user("anna"), THEN).annotations == 1
    assert [one.a.selection for one in judged(store)] == [2]
    assert store.batches.counts(THEN)[1].pairs == 1
    store.close()


def test_an_expired_answer_is_shown_to_nobody_before_it_is_pruned(place: str) -> None:
    store = filled(place, replace(row(1), expires=THEN + 1))
    made = batch(store)
    assert made.expires == THEN + 1
    assert leased(store)
    assert desk(store, now=THEN + 1).lease().pair is None
    assert desk(store, "bert", THEN + LEASE_SECONDS).lease().pair is None
    store.close()


def test_what_has_expired_remains_for_nobody_before_it_is_pruned(place: str) -> None:
    store = filled(place, row(1), *(replace(row(number), expires=THEN + 1) for number in (2, 3)), row(4))
    made = batch(store, overlap=2)
    assert len(list(annotate_all(desk(store, now=THEN), lambda pair: {}))) == 4
    assert [desk(store, "bert", now).mine().batches[0].remaining for now in (THEN, THEN + 1)] == [4, 2]
    leased(store, "bert", THEN + 1)
    assert desk(store, "carl", THEN + 1).lease(made.id).remaining == 1  # bert has the last place of the other one
    store.close()


def test_a_choice_to_revise_that_has_expired_hides_no_lease(place: str) -> None:
    store = filled(place, replace(row(1), expires=THEN + 1))
    batch(store)
    desk(store, now=THEN).annotate(choice(leased(store)))
    assert desk(store, now=THEN).undo().pair
    store.add([row(2)], 1)
    batch(store)
    held = leased(store, now=THEN + 1)
    assert leased(store, now=THEN + 1) == held
    assert desk(store, now=THEN + 1).undo().pair is None
    store.close()


def test_undo_passes_over_what_has_expired(place: str) -> None:
    """Regression: until it was pruned, it hid the choice before it, which could be undone."""
    store = filled(place, row(1), row(2))
    batch(store)
    [first, _] = [pair for pair, _ in annotate_all(desk(store, now=THEN), lambda pair: {})]
    latest = store.annotations.latest(1, THEN)
    assert latest
    pair = store.batches.pair(latest.pair)
    assert pair
    for table, number in (("pair", pair.number), ("selection", pair.a_selection)):
        store._database.execute(f"UPDATE {table} SET expires = ? WHERE number = ?", (THEN + 1, number))
    undone = desk(store, now=THEN + 1).undo().pair
    assert undone
    assert (undone.left, undone.right, undone.messages) == (first.left, first.right, first.messages)
    store.close()


def test_a_pair_is_sent_from_the_playground_once(place: str) -> None:
    store = filled(place, row(1))
    index = sorted({item.candidate.text: item.candidate.index for item in _first(store)}.values())
    sent = send(store, GivenPair(completion=row(1).id, candidates=index[:2]), THEN)
    assert send(store, GivenPair(completion=row(1).id, candidates=index[1::-1]), THEN) == sent
    other = send(store, GivenPair(completion=row(1).id, candidates=index[1:3]), THEN)
    assert (other.batch, other.pair != sent.pair) == (sent.batch, True)
    assert desk(store, now=THEN).lease().remaining == 2
    with pytest.raises(NotStored):
        send(store, GivenPair(completion="chatcmpl-0", candidates=[0, 1]), THEN)
    with pytest.raises(RequestError, match="by their index"):
        send(store, GivenPair(completion=row(1).id, candidates=[0, 99]), THEN)
    store.close()


def _first(store: Store) -> list:  # type: ignore[type-arg]
    found = store.numbered(1, NOW)
    assert found
    return list(found.record.selection.scored)


def test_counting_bears_a_batch_that_another_server_makes_meanwhile(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(place, row(1), row(2))
    connection = store._database
    execute = connection.execute

    def executed(statement: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        rows = execute(statement, values)
        if "min(expires)" in statement:
            monkeypatch.setattr(connection, "execute", execute)
            batch(store)
            desk(store, now=THEN).annotate(choice(leased(store)))
        return rows

    monkeypatch.setattr(connection, "execute", executed)
    assert store.batches.counts(THEN) == {}
    [counted] = store.batches.counts(THEN).values()
    assert (counted.pairs, counted.annotations) == (2, 1)
    store.close()


def test_guidelines_have_versions(place: str) -> None:
    store = filled(place, row(1), row(2))
    first = guidelines.newest(store, NOW)
    assert (first.version, "HOW CLEARLY" in first.text) == (1, True)
    second = guidelines.add(store, "Be kind. \u2028 %s ?", NOW + 1)
    assert (second.version, guidelines.add(store, second.text, NOW + 2)) == (2, second)
    assert guidelines.get(store, 1, NOW) == first
    with pytest.raises(NotStored, match="the newest is 2"):
        guidelines.get(store, 3, NOW)
    batch(store)
    guidelines.add(store, "Be kinder.", NOW + 3)
    pair = leased(store)
    assert pair.guidelines == 2
    desk(store, now=THEN).annotate(choice(pair))
    assert judged(store)[0].guidelines == 2
    store.close()
