"""The card's free memory, read again and again by a child process that holds a CUDA context of its own.

A child, because this process starts others and must not initialise CUDA; one child for all readings, because its
context then counts into the first reading as into the last. The driver's own library is asked, which takes less than
importing torch, and numbers the cards as torch does (CUDA_VISIBLE_DEVICES, MIG).

`python -m winnow.server.doctor.card_probe` prints the free bytes for each line that it reads.
"""

from __future__ import annotations

import contextlib
import ctypes
import select
import subprocess
import sys
from collections.abc import Callable, Iterator

from winnow.server.doctor.graphics import CUDA_LIBRARY

ANSWER_SECONDS = 60.0
"""Longest wait for a reading; a card that hangs must not keep the report from being written."""


@contextlib.contextmanager
def free_memory() -> Iterator[Callable[[], int | None]]:
    """Yield a function that returns the first card's free bytes; None if the card cannot be read."""
    child = subprocess.Popen(  # noqa: S603, our own module
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1,
    )  # fmt: skip
    assert child.stdin
    assert child.stdout
    asked, told = child.stdin, child.stdout

    def read() -> int | None:
        try:
            asked.write("\n")
            if not select.select([told], [], [], ANSWER_SECONDS)[0]:
                child.kill()
                return None
            return int(told.readline())
        except (OSError, ValueError):
            return None

    try:
        read()  # the context is made before the first reading counts
        yield read
    finally:
        with contextlib.suppress(OSError):
            asked.close()
        child.kill()
        child.wait()
        told.close()


def main() -> None:
    """Answer each line of standard input with the free bytes of the first card."""
    driver, context = ctypes.CDLL(CUDA_LIBRARY), ctypes.c_void_p()
    device, free, total = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_size_t()
    _check(driver.cuInit(0))
    _check(driver.cuDeviceGet(ctypes.byref(device), 0))
    _check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    _check(driver.cuCtxSetCurrent(context))
    for _ in sys.stdin:
        _check(driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
        sys.stdout.write(f"{free.value}\n")
        sys.stdout.flush()


def _check(status: int) -> None:
    if status:
        raise SystemExit(f"CUDA returned {status}")


if __name__ == "__main__":
    main()
