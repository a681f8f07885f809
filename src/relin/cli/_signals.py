"""Signals that end a command: obeyed wherever the main thread is, with a sentence that says what is kept.

Nothing is raised: an exception is lost in a callback of the garbage collector, in `__del__` or below C code. Python's
handler in C writes each signal's number into a pipe, even while the main thread compiles or computes, and a thread that
reads it ends the process.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from relin._common.writing import finish_writing

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_BEGUN_ANEW = "what was not yet written is lost, and the same command begins anew"
_PATIENCE = 1.2
"""Seconds from a signal to the end of the process, at most."""

_pipe: tuple[int, int] | None = None
_kept = _BEGUN_ANEW
_closing: list[Callable[[], None]] = []
_saving: list[Callable[[], None]] = []


def keeps(sentence: str) -> None:
    """Says what is kept if the command fails or is stopped from now on."""
    global _kept
    _kept = sentence


def kept() -> str:
    """What `keeps` was last told."""
    return _kept


@contextlib.contextmanager
def closed_when_stopped(close: Callable[[], None]) -> Iterator[None]:
    """`close` is called, in another thread, if a signal ends the process meanwhile."""
    _closing.append(close)
    try:
        yield
    finally:
        _closing.remove(close)


@contextlib.contextmanager
def saved_when_stopped(save: Callable[[], None]) -> Iterator[None]:
    """The same before the files that are being written are waited for, so that `save` can write some."""
    _saving.append(save)
    try:
        yield
    finally:
        _saving.remove(save)


def obey() -> None:
    """From now on Ctrl-C, SIGTERM and SIGHUP end the process with the code 128 + number; a second one does so at once.

    A signal that is ignored, as SIGHUP below `nohup`, stays so. On Windows, Ctrl-C is as Python has it.
    """
    global _pipe
    keeps(_BEGUN_ANEW)
    if not hasattr(os, "register_at_fork"):
        return
    if _pipe is None:
        _pipe = os.pipe()
        os.set_blocking(_pipe[1], False)
        threading.Thread(target=_watch, args=(_pipe[0],), name="relin signals", daemon=True).start()
        os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_forget)
    signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    for number in ENDING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _heard)


def _heard(number: int, frame: Any) -> None:
    """The main thread goes on, if it can: the watching thread ends the process."""


def _block() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def _forget() -> None:
    """A forked process shares the pipe, and what it is sent would end this one."""
    signal.set_wakeup_fd(-1)
    for number in ENDING:
        if signal.getsignal(number) is _heard:
            signal.signal(number, signal.SIG_DFL)
    _unblock()


def _watch(pipe: int) -> NoReturn:
    number = None
    while number is None:
        number = _ending(pipe)
    end = time.monotonic() + _PATIENCE
    threading.Thread(target=_leave, args=(number,), daemon=True).start()
    while (left := end - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0] and _ending(pipe):
            break
    os._exit(128 + number)


def _ending(pipe: int) -> int | None:
    """The next signal, if it is one that ends the command."""
    number = os.read(pipe, 1)[0]
    return number if number in ENDING else None


def _leave(number: int) -> NoReturn:
    """Each of these may wait for ever, for a lock of the main thread or for a reader; `_watch` does not."""
    try:
        for save in reversed(_saving):
            with contextlib.suppress(Exception):
                save()
        finish_writing(_PATIENCE / 2)
        if os.isatty(1):
            os.write(1, b"\x1b[?25h\n")  # a progress bar hides the cursor, and stands on this line
        os.write(2, f"relin: Stopped; {_kept}.\n".encode(getattr(sys.stderr, "encoding", None) or "utf-8", "replace"))
        for close in reversed(_closing):
            close()
        sys.stdout.flush()
    finally:
        os._exit(128 + number)
