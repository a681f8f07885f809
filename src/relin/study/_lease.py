"""Leases on names: who may compute a job, where processes of many machines share a folder.

Locks of the system (`flock`) do not reach other machines on every file system. The leases of the library `filelock` do,
but its takeover of a dead holder's on Linux exchanges two names in one step, which NFS and Lustre refuse.
"""

import contextlib
import hashlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import final

from relin._common.files import read_file
from relin._common.process import host, is_dead

RENEWED = 10.0
"""Seconds between two renewals of a lease by its holder."""
EXPIRES = 60.0
"""Seconds for which a lease must be seen unchanged by who takes it over."""
_PAUSE = 0.05


@final
class Leases:
    """Files `NAME.lease` in a folder, each held by one process at a time.

    A lease is made by exclusive creation, holds the machine, the process and a random token, and is renewed by a thread
    of its holder, which sets the file's time. It is free when its file is gone, when its holder was a process of this
    machine and is dead, or when this object has seen it unchanged for a minute of its own clock: clocks of two machines
    are never compared. A holder that was suspended for longer loses it without being told; what it does then must be
    harmless.

    It is assumed that exclusive creation and renaming are atomic for all machines, and that opening a file shows what
    others had written before.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._tokens = dict[str, str]()
        self._seen = dict[str, tuple[tuple[bytes, int], float]]()

    def acquire(self, name: str) -> bool:
        """Takes the lease if it is free, and says whether it did. Raises `OSError` where the folder is not writable."""
        path, token = self._path(name), secrets.token_hex(8)
        _renewal.add(path, token)  # before there is a file, which another thread would take for that of a dead process
        try:
            ours = _create(path, token) or self._take_over(path, token)
        except BaseException:
            _renewal.remove(token)
            raise
        if ours:
            self._tokens[name] = token
        else:
            _renewal.remove(token)
        return ours

    def release(self, name: str) -> None:
        """Gives the lease back; one that was lost stays with its new holder."""
        path, token = self._path(name), self._tokens.pop(name)
        _renewal.remove(token)
        with contextlib.suppress(OSError):
            if _is_held(path, token):
                path.unlink()

    def holds(self, name: str) -> bool:
        """Whether the lease was acquired here and nobody has taken it over since."""
        with contextlib.suppress(OSError):
            return name in self._tokens and _is_held(self._path(name), self._tokens[name])
        return False

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Waits for a lease, and holds it."""
        while not self.acquire(name):
            time.sleep(_PAUSE)
        try:
            yield
        finally:
            self.release(name)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.lease"

    def _take_over(self, path: Path, token: str) -> bool:
        """Replaces the lease of a holder that is gone.

        Only one process can make the file that is named after the old lease, and it replaces the lease by that file in
        one step, unless it is another lease by now.
        """
        old = self._expired(path)
        if old is None:
            return False
        claim = path.with_name(f"{path.name}.{hashlib.sha256(old).hexdigest()[:16]}")
        if not _create(claim, token):
            if self._expired(claim) is not None:  # of a process that died in this function
                claim.unlink(missing_ok=True)
            return False
        try:
            if read_file(path) != old:
                return False
            claim.replace(path)
            return True
        except OSError:  # it was given back meanwhile; or, on Windows, another process is reading it
            return False
        finally:
            claim.unlink(missing_ok=True)

    def _expired(self, path: Path) -> bytes | None:
        """The content of a lease whose holder is gone, as far as can be told; none of any other."""
        try:
            with path.open("rb") as file:  # opened, not looked at: NFS asks its server only then
                found = file.read(), os.fstat(file.fileno()).st_mtime_ns
        except OSError:
            return None
        now, key = time.monotonic(), path.name
        before, since = self._seen.get(key, (None, now))
        if before != found:
            self._seen[key] = found, now
            since = now
        if _holder_is_dead(found[0]) or now - since >= EXPIRES:
            self._seen.pop(key, None)
            return found[0]
        return None


def _create(path: Path, token: str) -> bool:
    """Makes a lease file, unless there is one."""
    content = json.dumps({"host": host(), "name": socket.gethostname(), "pid": os.getpid(), "token": token})
    try:
        with path.open("xb") as file, _removed_on_failure(path):
            file.write(content.encode())
            file.flush()
    except FileExistsError:
        return False
    except PermissionError:
        if os.name == "posix":
            raise
        return False  # on Windows its holder is just removing it
    return True


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    """A full disk must not leave a lease that nobody can read."""
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _is_held(path: Path, token: str) -> bool:
    return _settings(read_file(path)).get("token") == token


def _settings(content: bytes) -> dict[str, object]:
    try:
        settings = json.loads(content)
    except ValueError:  # it is just being written, or its writer died then
        return {}
    return settings if isinstance(settings, dict) else {}


def _holder_is_dead(content: bytes) -> bool:
    lease = _settings(content)
    where, pid, token = lease.get("host"), lease.get("pid"), lease.get("token")
    if not isinstance(where, str) or not isinstance(pid, int):
        return False
    if where == host() and pid == os.getpid():  # of a process before this one that had its number
        return token not in _renewal.tokens()
    return is_dead(where, pid)


@final
class _Renewal:
    """Renews all leases of this process, in one thread."""

    def __init__(self):
        self._held = dict[str, Path]()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, path: Path, token: str) -> None:
        with self._changed:
            self._held[token] = path
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="relin leases", daemon=True)
                self._thread.start()

    def remove(self, token: str) -> None:
        with self._changed:
            self._held.pop(token, None)

    def tokens(self) -> set[str]:
        with self._changed:
            return set(self._held)

    def _run(self) -> None:
        while True:
            time.sleep(RENEWED)
            with self._changed:
                held = list(self._held.items())
            for token, path in held:
                with contextlib.suppress(OSError):  # a file system that is away for a while
                    if _is_held(path, token):
                        os.utime(path)


_renewal = _Renewal()
