"""Failures that carry what was computed before them."""

import enum
from typing import Any


class Result(enum.Enum):
    """How a training run ended."""

    successful = "successful"
    failed_to_train = "failed to train"
    stopped = "stopped early"
    diverged = "diverged"
    solver_failed = "solver failed"
    data_exhausted = "data exhausted"
    interrupted = "interrupted"


class TrainingError(RuntimeError):
    """A run that did not reach its last step; `solution` holds everything computed until then."""

    def __init__(self, message: str, solution: Any):
        super().__init__(message)
        self.solution = solution
