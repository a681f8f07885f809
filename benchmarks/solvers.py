"""The solvers that need not walk every step, against compiled weight-space stepping."""

import argparse
from functools import partial

from benchmarks._function_space import function_space
from benchmarks._gauss_newton import gauss_newton
from benchmarks._one_row import one_row
from benchmarks._residuals import residuals
from benchmarks._spectral import spectral

PARTS = {
    "residuals": residuals,
    "spectral-mlp": partial(spectral, ("digits",)),
    "spectral-cnn": partial(spectral, ("fashion-mnist",)),
    "function-space": function_space,
    "gauss-newton": gauss_newton,
    "one-row": one_row,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks solvers")
    parser.add_argument("names", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=tuple(PARTS), action="append")
    for part in parser.parse_args().part or PARTS:
        PARTS[part]()
