"""What loggers have taken of a run that is kept in a folder, so that those of the next process go on after it."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, final

from relin._common.files import read_file, write_atomically


class Taken(NamedTuple):
    """By a logger, of a lane."""

    handle: str
    """Of what the logger has written to, see `AbstractLogger.handle`."""
    step: int
    """Of its last record."""


_Key = tuple[str, int | None]


@final
class Journal:
    """A file with a line for each record that a logger has taken; those of another run in its place are dropped.

    **Arguments:**

    - `path`: the file, in a folder that is there once there are records.
    - `run`: what says which run it is, of JSON's types.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]):
        self.path = path.absolute()
        text = json.dumps(dict(run), sort_keys=True, ensure_ascii=False)
        self._run = hashlib.sha256(text.encode()).hexdigest()
        self._begun, self._lock = False, threading.Lock()

    @cached_property
    def _before(self) -> dict[_Key, Taken]:
        return _read(self.path, self._run)

    def before(self, logger: str, lane: int | None) -> Taken | None:
        """What a logger of this name had taken when the process began."""
        return self._before.get((logger, lane))

    def add(self, logger: str, lane: int | None, taken: Taken) -> None:
        """What cannot be written is left out: the loggers are then shown records again."""
        with self._lock, contextlib.suppress(OSError):
            if not self._begun:
                lines = [_line(*key, *before) for key, before in self._before.items()]
                write_atomically(self.path, "".join([f'{{"run": "{self._run}"}}\n', *lines]))
                self._begun = True
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(logger, lane, *taken))


def _line(logger: str, lane: int | None, handle: str, step: int) -> str:
    return json.dumps({"logger": logger, "lane": lane, "handle": handle, "step": step}, ensure_ascii=False) + "\n"


def _read(path: Path, run: str) -> dict[_Key, Taken]:
    found = dict[_Key, Taken]()
    try:
        first, *lines = read_file(path).decode().splitlines()
        if json.loads(first) != {"run": run}:
            return {}
        for line in lines:
            entry = json.loads(line)
            found[entry["logger"], entry["lane"]] = Taken(entry["handle"], entry["step"])
    except (OSError, ValueError, KeyError, TypeError):  # a line is half written where the process was killed
        pass
    return found
