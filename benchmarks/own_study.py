"""How long a study of a network of one's own takes, over the same study of the shipped network."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

import relin as il
from benchmarks._measure import heading, row, table
from relin import study

OPTIONS = {"width": 64, "depth": 2}
SETTINGS: dict[str, Any] = {
    "periods": [1, 16, "inf"],
    "sparse_periods": [],
    "tolerances": [],
    "learning_rates": [0.1, 0.03],
    "steps": 1000,
    "seeds": 8,
    "select_seeds": 2,
    "finalists": None,
}


def build(key: jax.Array) -> Any:
    return il.from_equinox(il.models.build("mlp", (8, 8, 1), 10, key=key, **OPTIONS))


def main() -> None:
    heading("A frequency study of one's own MLP on digits over that of the shipped one")
    print(f"load {os.getloadavg()[0]:.2f}\n")
    ways = {"shipped": {"model": "mlp", "model_options": OPTIONS}, "one's own": {"network": build}}
    table(("compiled before", "shipped, s", "one's own, s", "ratio", "processor time: ratio"))
    for fresh in (True, False):
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(2 if fresh else 3):
            for name, network in ways.items():
                if fresh:
                    jax.clear_caches()
                times[name].append(_seconds(network))
        wall, used = ([min(one[place] for one in times[name]) for name in ways] for place in (0, 1))
        row("no" if fresh else "yes", *wall, wall[1] / wall[0], used[1] / used[0])


def _seconds(network: dict[str, Any]) -> tuple[float, float]:
    """On the clock, and of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        start, used = time.perf_counter(), time.process_time()
        study.Frequency(data="digits", **network, **SETTINGS).run(Path(folder) / "study", progress=False)
        return time.perf_counter() - start, time.process_time() - used
