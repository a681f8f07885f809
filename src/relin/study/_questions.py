"""What each study concludes from its records."""

from collections.abc import Callable

import polars as pl

from relin.study._essential import conclude_essential
from relin.study._frequency import conclude_frequency
from relin.study._kernel import conclude_kernel
from relin.study._layers import conclude_layers
from relin.study._result import GridResult
from relin.study._settings import Comparison, GridSpec
from relin.study._stability import conclude_stability
from relin.study._timing import conclude_timing
from relin.study._width import conclude_width

CONCLUSIONS: dict[str, Callable[[GridSpec, dict[Comparison, pl.DataFrame], float], GridResult]] = {
    "frequency": conclude_frequency,
    "essential": conclude_essential,
    "layers": conclude_layers,
    "timing": conclude_timing,
    "stability": conclude_stability,
    "kernel": conclude_kernel,
    "width": conclude_width,
}
"""From a study's settings, the records of each of its comparisons, and the accuracy at which a run
that did not train counts, to its answer."""
