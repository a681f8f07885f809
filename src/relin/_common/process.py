"""Which process wrote a file, and whether it is still there: on this machine that is known, on others it is not."""

import hashlib
import os
import socket
from functools import cache
from pathlib import Path


def host() -> str:
    """A short name for the machine, in letters and digits: two processes of one name can ask for each other by number.

    It is also that of the machine's start and of the process numbers' space, which a container has of its own.
    """
    return _digest(socket.gethostname(), *_spaces())


def is_dead(where: str, pid: int) -> bool:
    """Whether a process is known to have ended: one of this machine, which is not Windows."""
    if where != host() or os.name != "posix":  # on Windows asking with `os.kill` would end it
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # it belongs to another user
        return False
    return _has_ended(pid)


def _has_ended(pid: int) -> bool:
    """Whether a process is one that has ended and of which only the number is left, until its parent asks for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (OSError, IndexError):  # not Linux
        return False


@cache
def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


@cache
def _spaces() -> tuple[str, ...]:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return ()
