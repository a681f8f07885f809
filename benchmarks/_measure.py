"""Timing two things side by side, and saying on what."""

import datetime
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


def seconds(functions: Sequence[Callable[[], Any]], repeats: int = 5) -> list[float]:
    """The best time of each function, called in turns so that a busy machine slows all of them alike.

    Each is called once before, to compile.
    """
    for function in functions:
        jax.block_until_ready(function())
    times = np.full((repeats, len(functions)), np.inf)
    for turn in range(repeats):
        for index, function in enumerate(functions):
            start = time.perf_counter()
            jax.block_until_ready(function())
            times[turn, index] = time.perf_counter() - start
    return times.min(axis=0).tolist()


def flops(function: Callable, *arguments: Any) -> float:
    """The floating-point operations of a compiled program, by the compiler's own count."""
    analysis = jax.jit(function).lower(*arguments).compile().cost_analysis()
    return float(analysis["flops"])


def heading(title: str) -> None:
    first = jax.devices()[0]
    device = first.device_kind if first.platform != "cpu" else f"CPU {platform.machine()}, {os.cpu_count()} cores"
    print(
        f"\n## {title}\n\n{device}, JAX {jax.__version__}, {datetime.datetime.now(datetime.UTC).date()}\n", flush=True
    )


def table(columns: Sequence[str]) -> None:
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns), flush=True)


def row(*cells: Any) -> None:
    print(
        "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |", flush=True
    )
