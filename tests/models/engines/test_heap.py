"""Garbage collection while engines start, end, and share this process's heap; in processes of their own."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from winnow.models.engines import heap

FORKED = """
import gc, os, weakref
from winnow.models.engines import heap

class Ring:
    def __init__(self):
        self.own = self

inherited = weakref.ref(Ring())
with heap.growing(), heap.shared():
    child = os.fork()
    if not child:
        heap.inherit()
        late = weakref.ref(Ring())
        gc.unfreeze()
        gc.collect()
        os._exit(0 if gc.isenabled() and inherited() and not late() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert inherited() and gc.isenabled()
heap.release()
gc.collect()
assert not inherited()
"""


def test_a_forked_process_collects_its_own_garbage_and_never_scans_what_it_has_inherited() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_a_failed_start_leaves_nothing_frozen(error: type[BaseException]) -> None:
    """What stays frozen is reported as leaked by native modules: 80 lines below the error's one."""

    def fail() -> None:
        with heap.shared():
            assert gc.get_freeze_count()
            raise error

    with pytest.raises(error):
        fail()
    assert not gc.get_freeze_count()


def test_collection_goes_on_after_a_start_as_it_was() -> None:
    with heap.growing():
        assert not gc.isenabled()
        with heap.growing():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
