"""`python -m benchmarks [NAME …] [OPTION …]`: run some benchmarks, or all; options are for those that have any."""

import sys
from importlib import import_module
from itertools import takewhile

NAMES = (
    "step",
    "check",
    "checkpoint",
    "frameworks",
    "torch_step",
    "convolution",
    "custom_vjp",
    "alternatives",
    "sweep",
    "own_study",
    "executors",
    "devices",
    "startup",
    "sums",
    "parts",
    "preset",
    "kernel",
    "large_kernel",
    "reference",
    "solvers",
)


def main() -> None:
    chosen = tuple(takewhile(lambda word: not word.startswith("-"), sys.argv[1:])) or NAMES
    unknown = set(chosen) - set(NAMES)
    if unknown:
        sys.exit(f"There is no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}.")
    for name in chosen:
        import_module(f"benchmarks.{name}").main()


main()
