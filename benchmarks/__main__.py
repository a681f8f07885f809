"""`python -m benchmarks [NAME …]`: run some benchmarks, or all."""

import sys
from importlib import import_module

NAMES = ("step", "convolution", "alternatives", "sweep", "startup", "parts")


def main() -> None:
    chosen = sys.argv[1:] or NAMES
    unknown = set(chosen) - set(NAMES)
    if unknown:
        sys.exit(f"There is no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}.")
    for name in chosen:
        import_module(f"benchmarks.{name}").main()


main()
