"""Who is told how far training is: the caller's function, a progress bar, or nobody."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import jax

Progress = Callable[[int, int], None]
"""Called with (steps done, T)."""

_SECONDS = 0.5
"""Between two moves of a bar; pieces of a compiled run are as long."""
_PAUSE = 0.1
"""Between two moves, at least, of a run whose steps are called one by one."""


@final
class Bar:
    """A progress bar, drawn by rich in a thread of its own from the first call on, or `Lines` in its place."""

    def __init__(self, bar: Any):
        self._bar, self._task, self._moved = bar, None, -math.inf

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._moved < _PAUSE and done < total:
            return
        self._moved = now
        if self._task is None:
            self._task = self._bar.add_task("training", total=total, before=done)
        self._bar.update(self._task, completed=done)


@final
class Report:
    """Tells of the steps of a run that begins `offset` steps into `total`."""

    def __init__(self, progress: Progress | None, total: int, offset: int = 0):
        self._progress, self._total, self._offset = progress, total, offset
        self.by_bar = isinstance(progress, Bar)

    def __call__(self, step: int) -> None:
        if self._progress is not None:
            self._progress(self._offset + step, self._total)

    def next_step(self, step: int, took: float | None) -> int:
        """The next step at which the bar is to move; `took` are seconds a step, `None` where it is not known yet."""
        return step + 1 if took is None else step + max(1, int(_SECONDS / max(took, 1e-9)))


@contextmanager
def watched(progress: Progress | bool | None, num_steps: int | float) -> Iterator[Progress | None]:
    """The function that is told: the given one; a bar where it is asked for, or by default where someone sees it.

    By default that is in the main thread of the first process, where stderr is a terminal or a notebook. A bar that is
    asked for elsewhere is a few lines on stderr.

    **Raises:** `TypeError` for what is none of these.
    """
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise TypeError(f"`progress` must be a function of (done, total), True, False or None, got {progress!r}.")
    if progress is False or callable(progress) or math.isinf(num_steps):
        yield progress if callable(progress) else None
        return
    if progress is None and (threading.current_thread() is not threading.main_thread() or jax.process_index()):
        yield None
        return
    from rich.console import Console

    from relin._common.bar import Lines, is_watched, progress_bar

    console = Console(stderr=True)
    if not is_watched(console):
        yield Bar(Lines(console)) if progress else None
        return
    with progress_bar(console, transient=True, refresh_per_second=4) as bar:
        bar.start()
        yield Bar(bar)
