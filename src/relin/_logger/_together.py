"""Several loggers, of one run or of many lanes."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from relin._logger._base import AbstractLogger
from relin._logger._journal import Journal, Taken

Log = Callable[[int, Mapping[str, Any], Any], None]
"""Called with the step of a record, its values, and the steps at which the run, or each lane, diverged, or −1."""

_LastSteps = dict[tuple[int, int | None], int]
"""Of the records that loggers had taken of lanes when the process began; −1 of none."""


class Loggers:
    """Several loggers as one, of which none can end a run: one that fails is said once, and left out from then on."""

    def __init__(self, loggers: Sequence[AbstractLogger]):
        self._loggers = list(loggers)
        kinds = [logger.kind for logger in loggers]
        self._names = {id(logger): f"{logger.kind} {kinds[:n].count(logger.kind)}" for n, logger in enumerate(loggers)}

    def of_run(self, lane: int | None = None, journal: Journal | None = None) -> Log:
        """Takes the records of one run; with a journal those that were not taken before."""
        taken = {}
        return lambda step, values, diverged_at: self._log(step, values, lane, journal, taken)

    def of_lanes(self, num_lanes: int, journal: Journal | None = None) -> Log:
        """Takes records whose values have a leading axis of lanes; a lane's end with its divergence."""
        running, taken = list(range(num_lanes)), {}

        def log(step: int, values: Mapping[str, Any], diverged_at: Any) -> None:
            if not self._loggers:
                return
            columns, ends = {name: np.asarray(column) for name, column in values.items()}, np.asarray(diverged_at)
            for lane in tuple(running):
                self._log(step, {name: column[lane] for name, column in columns.items()}, lane, journal, taken)
                if 0 <= ends[lane] < step:
                    running.remove(lane)

        return log

    def _log(
        self, step: int, values: Mapping[str, Any], lane: int | None, journal: Journal | None, taken: _LastSteps
    ) -> None:
        if not self._loggers:
            return  # else a run would wait here for the device
        arrays = {name: np.asarray(value) for name, value in values.items()}
        for logger in tuple(self._loggers):
            try:
                self._show(logger, step, arrays, lane, journal, taken)
            except Exception as error:
                self._loggers.remove(logger)
                message = f"{type(logger).__name__} could not log step {step} and is left out from then on: {error}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)

    def _show(
        self,
        logger: AbstractLogger,
        step: int,
        values: Mapping[str, np.ndarray],
        lane: int | None,
        journal: Journal | None,
        taken: _LastSteps,
    ) -> None:
        if journal is None:
            logger.log(step, values, lane)
            return
        name, key = self._names[id(logger)], (id(logger), lane)
        if key not in taken:
            before = journal.before(name, lane)
            taken[key] = before.step if before is not None and logger.reopen(before.handle, lane) else -1
        if step > taken[key]:
            logger.log(step, values, lane)
            if (handle := logger.handle(lane)) is not None:
                journal.add(name, lane, Taken(handle, step))
