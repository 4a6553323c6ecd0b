"""The memory that engines took, from looks at a card's free memory or at their processes."""

from __future__ import annotations

from dataclasses import replace

from winnow.server.doctor.memory_watch import Look, Taken, engines_of, taken_in_ram, taken_on_card

TITLE = "VLLM::EngineCore"
SERVER, SAFETY, HELPFULNESS, POLICY, OTHER = 10, 31, 22, 40, 50


def look(free: int | None, **sizes: int) -> Look:
    pids = {"safety": SAFETY, "helpfulness": HELPFULNESS, "policy": POLICY, "other": OTHER}
    titles = {pid: TITLE if pid != OTHER else "python -c tracker" for pid in pids.values()}
    below = {pids[name]: (size, titles[pids[name]]) for name, size in sizes.items()}
    return Look(free, {SERVER: (5, "python -m trial"), **below})


def test_on_a_card_an_engine_took_what_was_free_before_it() -> None:
    """The peak within an engine's start counts, and what all take later counts for all."""
    looks = [
        look(1000),
        look(990, safety=0),
        look(700, safety=0),  # its peak
        look(800, safety=0, other=0),
        look(800, safety=0, helpfulness=0),
        look(550, safety=0, helpfulness=0),
        look(550, safety=0, helpfulness=0, policy=0),
        look(50, safety=0, helpfulness=0, policy=0),
        look(40, safety=0, helpfulness=0, policy=0),
        look(1000),
    ]
    engines = engines_of(looks)
    assert engines == [SAFETY, HELPFULNESS, POLICY]
    assert taken_on_card(looks, engines) == Taken((300, 250, 510), 960, 40)


def test_what_is_taken_under_load_is_no_engines_but_counts_for_all() -> None:
    """Kernels are loaded, and workspaces made, at an engine's first request, when the last one has started."""
    looks = [look(1000), look(700, safety=0), look(600, safety=0, policy=0), look(450, safety=0, policy=0)]
    timed = [replace(one, at=float(number)) for number, one in enumerate(looks)]
    assert taken_on_card(timed, [SAFETY, POLICY], ready_at=2.5) == Taken((300, 100), 550, 450)
    assert taken_on_card(timed, [SAFETY, POLICY]) == Taken((300, 250), 550, 450)


def test_a_trial_without_engines_took_what_it_took() -> None:
    assert taken_on_card([look(900), look(400), look(880)], []) == Taken((), 500, 400)


def test_in_ram_the_peaks_of_processes_count() -> None:
    looks = [look(90), look(80, safety=3), look(60, safety=9, other=2), look(70, safety=4, helpfulness=7)]
    assert taken_in_ram(looks, [SAFETY, HELPFULNESS]) == Taken((9, 7), 16, 60)


def test_nothing_seen_is_nothing_known() -> None:
    assert taken_on_card([Look(None, {})], []) is None
    assert taken_in_ram([], []) is None
    assert taken_in_ram([Look(5, {})], []) is None


def test_a_process_that_has_no_title_yet_is_an_engine_from_its_beginning() -> None:
    looks = [Look(9, {31: (0, "python -c spawn")}), Look(5, {31: (0, TITLE)})]
    assert engines_of(looks) == [31]
    assert taken_on_card(looks, [31]) == Taken((4,), 4, 5)
