"""How long one study of 540 runs takes in threads, processes and on Ray; and what a model of it says of others."""

import argparse
import os
import resource
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import dropwhile
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks._measure import heading, row, table
from relin import study

STEPS, LONGER = 20, 520


class Took(NamedTuple):
    """Seconds."""

    wall: float
    used: float
    """Of the processor, here and in processes that have ended; not of Ray's."""
    again: float
    """To read it once it is finished."""
    load: float
    """Of the machine, processes that want a core, at the end."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks executors")
    parser.add_argument("--runs", type=int, default=10**6, help="of the study that the model is asked about")
    parser.add_argument("--steps", type=int, default=1000, help="of each of them")
    parser.add_argument("--cores", type=int, default=2048, help="of the cluster")
    options = parser.parse_args(list(dropwhile(lambda word: not word.startswith("-"), sys.argv[1:])))
    heading("One frequency study of 540 runs on digits, by who computes it")
    with tempfile.TemporaryDirectory() as folder:
        for name, value in (("dir", folder), ("min_compile_time_secs", 0.0), ("min_entry_size_bytes", -1)):
            kind = "compilation" if name == "dir" else "persistent"
            jax.config.update(f"jax_{kind}_cache_{name}", value)
        compare(options)


def compare(options: argparse.Namespace) -> None:
    print(f"load {os.getloadavg()[0]:.1f} before; programs are compiled before, but those of Ray's workers\n")
    for steps in (STEPS, LONGER):
        _took("threads:2", steps)
    one = {steps: _took("threads:1", steps) for steps in (STEPS, LONGER)}
    a_step = (one[LONGER].used - one[STEPS].used) / (540 * (LONGER - STEPS))
    a_run = one[STEPS].used / 540 - STEPS * a_step
    print(f"Model: {1e6 * a_step:.1f} µs a step, {1e3 * a_run:.2f} ms a run beside its steps, of threads:1 alone.")
    print(f"Reading a finished study of 540 runs again: {one[STEPS].again:.2f} s.\n")
    table(("executor", "steps of a run", "seconds", "of the processor", "of the processor, model", "model", "load"))
    for executor, workers in (("threads:1", 1), ("threads:2", 2), ("processes:2", 2), ("ray", 2)):
        if executor == "ray" and not _ray_begins():
            print("Ray is not installed: pip install 'relin[ray]'.")
            continue
        for steps in (STEPS, LONGER):
            took = one[steps] if workers == 1 else _took(executor, steps)
            model = 540 * (a_run + steps * a_step)
            used = "" if executor == "ray" else f"{took.used:.1f}"
            times = (f"{took.wall:.1f}", used, f"{model:.1f}", f"{model / workers:.1f}", f"{took.load:.1f}")
            row(executor, steps, *times)
    seconds = options.runs * (a_run + options.steps * a_step)
    print(
        f"\n{options.runs:,} runs of {options.steps:,} steps on {options.cores:,} such cores, by the model: "
        f"{seconds / options.cores / 60:.1f} minutes, {seconds / 3600:,.1f} core hours"
    )


def _spec(steps: int) -> Any:
    return study.read_spec("frequency", "digits", {"steps": steps, "num_records": 2, "probe_size": 32})


def _took(executor: str, steps: int) -> Took:
    with tempfile.TemporaryDirectory() as name:
        start, used, folder = time.perf_counter(), _used(), Path(name) / "study"
        _, records = study.run_study(_spec(steps), folder, executor=executor)
        wall, used, ended = time.perf_counter() - start, _used() - used, time.perf_counter()
        study.run_study(_spec(steps), folder, executor=executor)
        again = time.perf_counter() - ended
    runs = records.select("schedule", "learning_rate", "seed").unique().height
    assert runs == 540, runs
    return Took(wall, used, again, os.getloadavg()[0])


def _used() -> float:
    return sum(
        getattr(resource.getrusage(who), name)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        for name in ("ru_utime", "ru_stime")
    )


def _ray_begins() -> bool:
    if find_spec("ray") is None:
        return False
    import ray  # pyright: ignore[reportMissingImports]

    if not ray.is_initialized():
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    return True
