"""`--log`: where records go beside the table."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from relin.cli._failure import CommandError, UsageError
from relin.cli._signals import closed_when_stopped

if TYPE_CHECKING:
    import relin

TRACKERS = ("tensorboard", "mlflow", "wandb")


def logger_kind(where: str) -> tuple[str, str]:
    """The kind of logger and its place; raises `UsageError` for what is neither a file of JSON lines nor a tracker."""
    kind, _, place = where.partition(":")
    if kind in TRACKERS and place:
        return kind, place
    if where.endswith(".jsonl"):
        return "jsonl", where
    raise UsageError(
        f"--log takes FILE.jsonl, tensorboard:FOLDER, mlflow:URI or wandb:FOLDER, got {where!r}; pass one of these."
    )


@contextlib.contextmanager
def opened(kinds: list[tuple[str, str]]) -> Iterator[list["relin.AbstractLogger"]]:
    """The loggers, closed at the end; what they warn of is said as everything else is.

    Raises `CommandError` for one that cannot be opened.
    """
    shown = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"relin: {message}\n"
    try:
        with contextlib.ExitStack() as stack:
            loggers = list["relin.AbstractLogger"]()
            for kind in kinds:
                loggers.append(logger := _opened(*kind))
                stack.callback(_close, logger)
                stack.enter_context(closed_when_stopped(logger.close))
            yield loggers
    finally:
        warnings.formatwarning = shown


def _close(logger: "relin.AbstractLogger") -> None:
    """Closes a logger; the run whose records it took is not lost with it."""
    try:
        logger.close()
    except Exception as error:
        warnings.warn(f"{type(logger).__name__} could not be closed: {error}", RuntimeWarning, stacklevel=2)


def _opened(kind: str, place: str) -> "relin.AbstractLogger":
    import relin as il

    try:
        if kind == "jsonl":
            return il.JSONLines(place)
        if kind == "tensorboard":
            return il.TensorBoard(place)
        if kind == "mlflow":
            return il.MLflow(tracking_uri=place)
        Path(place).mkdir(parents=True, exist_ok=True)
        return il.WeightsAndBiases(dir=place)
    except Exception as error:
        raise CommandError(f"--log could not open {place!r}: {error}") from error
