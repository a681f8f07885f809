"""Several loggers, of one run or of many lanes."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from relin._logger._base import AbstractLogger

Log = Callable[[int, Mapping[str, Any], Any], None]
"""Called with the step of a record, its values, and the steps at which the run, or each lane, diverged, or −1."""


class Loggers:
    """Several loggers as one, of which none can end a run: one that fails is said once, and left out from then on."""

    def __init__(self, loggers: Sequence[AbstractLogger]):
        self._loggers = list(loggers)

    def of_run(self, lane: int | None = None) -> Log:
        """Takes the records of one run."""
        return lambda step, values, diverged_at: self._log(step, values, lane)

    def of_lanes(self, num_lanes: int) -> Log:
        """Takes records whose values have a leading axis of lanes; a lane's end with its divergence."""
        running = list(range(num_lanes))

        def log(step: int, values: Mapping[str, Any], diverged_at: Any) -> None:
            if not self._loggers:
                return
            columns, ends = {name: np.asarray(column) for name, column in values.items()}, np.asarray(diverged_at)
            for lane in tuple(running):
                self._log(step, {name: column[lane] for name, column in columns.items()}, lane)
                if 0 <= ends[lane] < step:
                    running.remove(lane)

        return log

    def _log(self, step: int, values: Mapping[str, Any], lane: int | None) -> None:
        if not self._loggers:
            return  # else a run would wait here for the device
        arrays = {name: np.asarray(value) for name, value in values.items()}
        for logger in tuple(self._loggers):
            try:
                logger.log(step, arrays, lane)
            except Exception as error:
                self._loggers.remove(logger)
                message = f"{type(logger).__name__} could not log step {step} and is left out from then on: {error}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
