"""Progress bars, of rich: the same on terminals and, with ipywidgets, in notebooks; lines where none can be drawn."""

import sys
import time
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, final

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text


@final
class _TimeLeft(ProgressColumn):
    """At the speed so far. Rich's own column looks at the last steps only, and those come in lumps."""

    def render(self, task: Task) -> Text:
        before = task.fields.get("before", 0)
        if task.completed <= before or task.total is None or task.elapsed is None:
            return Text("-:--:--")
        return Text(_time_left(task.completed, task.total, before, task.elapsed))


def _time_left(done: float, total: float, before: float, seconds: float) -> str:
    return str(timedelta(seconds=round(seconds * (total - done) / (done - before))))


@final
class Lines:
    """What a bar says, in at most eleven lines, for files, pipes and consoles that draw none; moved as rich's bar."""

    def __init__(self, console: Console):
        self._console = console

    def add_task(self, description: str, *, total: float, before: float) -> int:
        self._description, self._total, self._before = description, total, before
        self._said, self._began = before, time.monotonic()
        return 0

    def update(self, task: int, *, completed: float) -> None:
        del task
        ended = self._said < completed == self._total
        if completed - self._said < self._total / 10 and not ended:
            return
        self._said, seconds = completed, time.monotonic() - self._began
        left = _time_left(completed, self._total, self._before, seconds)
        self._console.print(
            f"{self._description}: {completed:,} of {self._total:,} steps, {completed / self._total:.0%}, "
            f"{timedelta(seconds=round(seconds))}, left: {left}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def progress_bar(console: Console, **options: Any) -> Progress:
    """What is done, a bar, percent, time elapsed and time left; a task's field `before` is what was done before it."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        _TimeLeft(),
        console=console,
        **options,
    )


def is_watched(console: Console) -> bool:
    """Whether someone sees a bar on stderr: on a terminal that can draw one, or in a notebook with ipywidgets."""
    if console.is_jupyter:
        return find_spec("ipywidgets") is not None
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return terminal and not console.is_dumb_terminal
