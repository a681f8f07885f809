"""How long one waits for `import relin`, `relin --help`, a study's first and second start, and a finished one."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._measure import heading, row, table

COMMANDS = {
    "import relin": [sys.executable, "-c", "import relin"],
    "import relin; relin.train": [sys.executable, "-c", "import relin; relin.train"],
    "relin --help": ["relin", "--help"],
}
TINY = ["relin", "study", "frequency", "--steps", "20", "--seeds", "2", "--set", "learning_rates=[0.03]"]

FINISHED = ["relin", "study", "frequency", "--steps", "64"]
"""All runs of the default study, each of few steps."""


def main() -> None:
    heading("Starting up")
    table(("what", "seconds"))
    for name, command in COMMANDS.items():
        row(name, min(_seconds(command) for _ in range(5)))
    with tempfile.TemporaryDirectory() as folder:
        cache = {"RELIN_CACHE": str(Path(folder) / "cache")}
        for name in ("first", "second"):
            command = [*TINY, "--out", str(Path(folder) / name)]
            row(
                f"a tiny study, {name} time (compilation cache {'empty' if name == 'first' else 'full'})",
                _seconds(command, cache),
            )
    heading("A finished study of 540 runs")
    table(("what", "seconds", "of the processor"))
    with tempfile.TemporaryDirectory() as folder:
        command = [*FINISHED, "--out", folder]
        _seconds(command)
        for name, options in (("nothing changed", []), ("`--redraw`", ["--redraw"])):
            row(name, *min(_both([*command, *options]) for _ in range(3)))


def _both(command: list[str]) -> tuple[float, float]:
    """Seconds, and those that processors spent on it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = _seconds(command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _seconds(command: list[str], environment: dict[str, str] | None = None) -> float:
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", **(environment or {})}
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start
