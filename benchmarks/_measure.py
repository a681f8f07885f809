"""Timing two things side by side, and saying on what."""

import datetime
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.stages import Compiled


def seconds(functions: Sequence[Callable[[], Any]], repeats: int = 5, warm_up: bool = True) -> list[float]:
    """The best time of each function, called in turns so that a busy machine slows all of them alike.

    `warm_up` calls each once before, to compile.
    """
    if warm_up:
        for function in functions:
            jax.block_until_ready(function())
    times = np.full((repeats, len(functions)), np.inf)
    for turn in range(repeats):
        for index, function in enumerate(functions):
            start = time.perf_counter()
            jax.block_until_ready(function())
            times[turn, index] = time.perf_counter() - start
    return times.min(axis=0).tolist()


def compiled(function: Callable, *arguments: Any) -> Compiled:
    """The function's program for such arguments."""
    return jax.jit(function).lower(*arguments).compile()


def flops(program: Compiled) -> float:
    """The floating-point operations of a compiled program, by the compiler's own count."""
    analysis: Any = program.cost_analysis()
    return float(analysis["flops"])


def temporary_memory(program: Compiled) -> int:
    """The bytes a compiled program takes beside its arguments and results."""
    analysis: Any = program.memory_analysis()
    return analysis.temp_size_in_bytes


def memory_left() -> int:
    """The bytes free on the device."""
    if statistics := jax.devices()[0].memory_stats():
        return statistics["bytes_limit"] - statistics["bytes_in_use"]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


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
