"""Leases on names: who may compute a job or write to a place, where processes of many machines share a folder.

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
from relin._common.words import shortened

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

    def take(self, name: str) -> str | None:
        """Takes the lease, or says in words which living process holds it; none where it was taken.

        Where that is not known at once, as of a process of another machine, it waits for a sign of life, for a minute.

        **Raises:** `OSError` where the folder is not writable.
        """
        path, first, begun = self._path(name), None, time.monotonic()
        while not self.acquire(name):
            found = _look(path)
            first = first or found
            if found and (found != first or _lives_here(*found)):
                return _in_words(found[0])
            if time.monotonic() - begun > 2 * EXPIRES:
                return "a process that cannot be told"
            time.sleep(_PAUSE)
        return None

    def keep(self, name: str) -> bool:
        """Whether the lease is held still; one whose file was removed is taken anew. Raises `OSError` as `acquire`."""
        if self.holds(name):
            return True
        self.release(name)
        return self.acquire(name)

    def release(self, name: str) -> None:
        """Gives the lease back; one that was lost stays with its new holder."""
        path, token = self._path(name), self._tokens.pop(name, None)
        if token is None:
            return
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
        if (found := _look(path)) is None:
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


@final
class SoleWriter:
    """Makes this process the only one that writes to a place.

    **Arguments:**

    - `place`: a folder or a file.
    - `folder`, `name`: of the lease. A place that is this folder is made, and removed again if it stays empty.
    """

    def __init__(self, place: Path, folder: Path, name: str):
        self._place, self._folder, self._name = place, folder.absolute(), name
        self._leases, self._made, self._own = Leases(self._folder), False, self._folder == place.absolute()

    def take(self) -> None:
        """Raises `InUseError` where another process has the place, and `OSError` where the lease cannot be written."""
        if self._own and not self._folder.exists():
            self._folder.mkdir(exist_ok=True)
            self._made = True
        if (holder := self._leases.take(self._name)) is not None:
            raise InUseError(
                f"{self._place} is in use by {holder}; wait until that has ended, or choose another place."
            )

    def keep(self) -> bool:
        """Before each writing: whether the place was this process's all the time; one whose lease was removed meanwhile
        has it anew.

        **Raises:** `LeaseLostError` if the place was lost to another process, and `OSError`.
        """
        held = self._leases.holds(self._name)
        if not (held or self._leases.keep(self._name)):
            raise LeaseLostError(
                f"{self._place} was taken over by another process while this one was suspended for a minute; "
                "let that one go on."
            )
        return held

    def leave(self) -> None:
        self._leases.release(self._name)
        if self._made:
            with contextlib.suppress(OSError):  # it is not empty
                self._folder.rmdir()


class InUseError(ValueError):
    """Another process writes there."""


class LeaseLostError(InUseError):
    """Another process has taken the place over since this one took it."""


def _look(path: Path) -> tuple[bytes, int] | None:
    """A lease's content and time; none where it cannot be read."""
    try:
        with path.open("rb") as file:  # opened, not looked at: NFS asks its server only then
            return file.read(), os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def _lives_here(content: bytes, renewed: int) -> bool:
    """Whether a lease is that of a living process of this machine, by its number, which another may have got since."""
    where, pid = (_settings(content).get(name) for name in ("host", "pid"))
    recently = abs(time.time() - renewed / 1e9) < EXPIRES
    return where == host() and isinstance(pid, int) and recently and os.name == "posix" and not is_dead(host(), pid)


def _in_words(content: bytes) -> str:
    lease = _settings(content)
    if not isinstance(lease.get("pid"), int):
        return "another process"
    return f"process {lease['pid']} of the machine {shortened(lease.get('name'))}"


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
