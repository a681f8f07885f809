"""Files that are either there in full or not at all, and that tell whether they are as they were written."""

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from relin._common.process import host, is_dead
from relin._common.writing import whole

BLANK = {"relin-digest": "sha256:" + 64 * "0"}
"""The entry of a file's settings or metadata that `sealed` fills in."""
_KEY = b"relin-digest"
_ENTRY = re.compile(rb"relin-digest.{1,4}?sha256:([0-9a-f]{64})", re.DOTALL)
_VALUE = re.compile(rb"sha256:[0-9a-f]{64}")
_DEEPEST = 100
_PART = re.compile(r"\.(?P<host>[0-9a-f]{12})-(?P<pid>\d+)\.[^.]+\.part")
_LONGEST = 24 * 3600.0
"""Seconds after which nobody is writing a part any more, by whatever clock."""


@whole
def write_atomically(path: Path, content: bytes | str) -> Path:
    """Writes a file beside `path` that takes its place once it is whole and on the disk.

    **Raises:** `OSError`, which names `path`, where the disk refuses or the folder is not there; what was there before
    is then there still.
    """
    writer = f"{host()}-{os.getpid()}"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{writer}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o644)  # mkstemp lets only its owner read: what is written here may be shared
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def remove_parts(folder: Path, name: str = "*") -> None:
    """Removes what is half written, of a file or all, and was left by processes that died.

    What a process of another machine writes is left there for a day, and what names no process, as parts once did not,
    was left.
    """
    for part in folder.glob(f".{name}.*.part"):
        with contextlib.suppress(OSError):
            if _is_left(part):
                part.unlink()


def _is_left(part: Path) -> bool:
    writer = _PART.search(part.name)
    if writer is None or is_dead(writer["host"], int(writer["pid"])):
        return True
    return time.time() - part.stat().st_mtime > _LONGEST


def open_file(path: Path) -> BinaryIO:
    """A regular file, to be read: a device or a pipe could be read for ever.

    **Raises:** `OSError`.
    """
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # opening a pipe would wait for its writer
    handle = os.open(path, os.O_RDONLY | flags)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(handle, "rb")


def read_file(path: Path) -> bytes:
    """The bytes of a regular file. Raises `OSError`."""
    with open_file(path) as file:
        return file.read()


def sealed(content: bytes) -> bytes:
    """A file's content, which holds `BLANK` once, with its SHA-256 digest there: that of all of it while blank."""
    entry = _ENTRY.search(content)
    assert entry is not None, "the content must hold the blank entry"
    return content[: entry.start(1)] + _digest(content, entry) + content[entry.end(1) :]


def is_damaged(content: bytes) -> bool:
    """Whether a file is not as `sealed` wrote it. Files from before there were digests are not.

    The entry has two words, its key and its kind, and one of them outlives any single fault.
    """
    start = content.find(_KEY)
    entry = None if start < 0 else _ENTRY.match(content, start)
    if entry is None:
        return start >= 0 or _VALUE.search(content) is not None
    return entry[1] != _digest(content, entry)


def _digest(content: bytes, entry: re.Match[bytes]) -> bytes:
    view = memoryview(content)
    digest = hashlib.sha256(view[: entry.start(1)])
    digest.update(64 * b"0")
    digest.update(view[entry.end(1) :])
    return digest.hexdigest().encode()


def as_json(settings: Mapping[str, Any]) -> bytes:
    """Settings as JSON, sealed."""
    return sealed(json.dumps({**settings, **BLANK}, indent=2, ensure_ascii=False).encode())


def from_json(content: bytes) -> Any:
    """What `as_json` was given, or plain JSON.

    **Raises:** `ValueError` if it is damaged, or nothing that settings could be.
    """
    if is_damaged(content):
        raise ValueError("changed since relin wrote it")
    try:
        settings = json.loads(content.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_depth(settings)
    if isinstance(settings, dict):
        settings.pop("relin-digest", None)
    return settings


def check_depth(settings: Any) -> None:
    """Raises `ValueError` for lists and tables within each other that no setting needs and that exhaust the stack."""
    level = [settings]
    for _ in range(_DEEPEST):
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _inside(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
