"""What holds for every file that is written: its errors name it, and the process can wait for it before it ends."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

_changed = threading.Condition()
_writing = 0
_closed = False


def whole(write: Callable[[Path, bytes | str], Path]) -> Callable[[Path, bytes | str], Path]:
    """A function that writes a file, as `finish_writing` knows it; its `OSError` names the file."""

    @functools.wraps(write)
    def counted(path: Path, content: bytes | str) -> Path:
        global _writing
        with _changed:
            _changed.wait_for(lambda: not _closed)
            _writing += 1
        try:
            with named(path):
                return write(path, content)
        finally:
            with _changed:
                _writing -= 1
                _changed.notify_all()

    return counted


def finish_writing(seconds: float) -> None:
    """Before the process ends: waits for the files that are being written, at most so long, and lets none begin."""
    global _closed
    with _changed:
        _closed = True
        _changed.wait_for(lambda: not _writing, seconds)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """An `OSError` that names no file, as that of a full disk, or a temporary one of ours, gets this name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename).endswith(".part")):
            error.filename = str(path)
        raise
