"""Kills a process and all that it started, again and again, until what it does has been done often enough."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from tools.kills.subjects import Subject


class Tally(NamedTuple):
    kills: int
    between: int
    """Kills between the first piece of work that was kept and the last."""
    ends: int
    lost: int
    different: int


class Moment(NamedTuple):
    seconds: float
    after_more: bool
    """Whether a tenth of these seconds is counted from when more had been done than before."""


def killed(subject: Subject, folder: Path, kills: int, seed: int) -> Tally:
    """Lets it run undisturbed, then kills it so many times: half of them at moments spread evenly over how long that
    took, half soon after it has done more than before. What it does is begun anew in another folder each time that it
    reaches its end, which it does at last.

    **Raises:** `RuntimeError` where it ends with an error.
    """
    random_moment = random.Random(seed)
    first = folder / "first"
    _run(subject, first, None)  # compiles
    begun = time.monotonic()
    _run(subject, folder / "whole", None)
    took, whole = time.monotonic() - begun, subject.outcome(folder / "whole")
    between = ends = lost = 0
    different = int(subject.outcome(first) != whole)
    done, place = 0, folder / "0"
    before = subject.kept(place)
    while done < kills or before or not ends:
        moment = Moment(random_moment.uniform(0, took), after_more=random_moment.random() < 0.5)
        ended = _run(subject, place, moment if done < kills else None)
        done += not ended
        after = subject.kept(place)
        lost += len(before.items() - after.items())
        if ended:
            ends += 1
            different += subject.outcome(place) != whole
            place, after = folder / str(ends), {}
        between += bool(after) and not ended
        before = after
    return Tally(done, between, ends, lost, different)


def _run(subject: Subject, folder: Path, moment: Moment | None) -> bool:
    """Whether it ended by itself; otherwise it was killed at this moment, with all its processes."""
    with subprocess.Popen(
        subject.command(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        if moment and moment.after_more:
            before = subject.kept(folder)
            while process.poll() is None and subject.kept(folder) == before:
                time.sleep(0.02)
        try:
            told, _ = process.communicate(timeout=moment and moment.seconds / (10 if moment.after_more else 1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return False
    if process.returncode:
        raise RuntimeError(f"{subject.name} ended with {process.returncode}:\n{told}")
    return True
