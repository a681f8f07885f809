"""Progress bars, of rich: the same on terminals and, with ipywidgets, in notebooks."""

import sys
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
        done = task.completed - task.fields.get("before", 0)
        if done <= 0 or task.total is None or task.elapsed is None:
            return Text("-:--:--")
        seconds = task.elapsed * (task.total - task.completed) / done
        return Text(str(timedelta(seconds=round(seconds))))


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
