"""What a schedule is asked in PyTorch: `due` by the step, and the adaptive ones by PyTorch's own predictions."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree

from relin.torch._outputs import tensors_of

if TYPE_CHECKING:
    from relin._schedule import AbstractSchedule


class Batch(NamedTuple):
    """The arguments of one call of the module."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def check_schedule(schedule: Any) -> None:
    """Raises `TypeError` or `ValueError` for what is no schedule, or asks for more than a module has."""
    if schedule is None:
        return
    if not callable(getattr(type(schedule), "due", None)):
        raise TypeError(
            f"`schedule` must be one of relin's, got {type(schedule).__name__}; pass Every(64), or None to call "
            "relinearise() yourself."
        )
    if schedule.partial:
        raise ValueError(
            f"`schedule` must re-linearise all parameters at once, got {type(schedule).__name__}; train parts by "
            "schedules of their own with relin.train and from_torch."
        )
    if schedule.adaptive:
        _measure(schedule)


def is_due(schedule: "AbstractSchedule", step: int) -> bool:
    """Whether a re-linearisation may happen before this step."""
    return bool(type(schedule).due(schedule, step))  # a bound method of an Equinox module takes 60 microseconds to make


def probe_of(schedule: "AbstractSchedule", coming: Batch, like: Tensor) -> Batch:
    """The inputs on which an adaptive schedule measures: its probe, or the first half of the coming batch."""
    probe = _inner(schedule).probe
    if probe is None:
        return _half(coming)
    probe = _pytree.tree_map(lambda leaf: _tensor(leaf, like), probe)
    if isinstance(probe, tuple | list):
        return Batch(tuple(probe), {})
    return Batch((), dict(probe)) if isinstance(probe, dict) else Batch((probe,), {})


def measured(
    schedule: "AbstractSchedule", linearised: list[Tensor], network: list[Tensor], anchor: list[Tensor]
) -> float:
    """What an adaptive schedule compares with its tolerance, of predictions on its probe."""
    return _measure(schedule)(linearised, network, anchor)


class NothingComparedError(ValueError):
    """A module that returns a loss alone."""


def compared(outputs: Any) -> list[Tensor]:
    """The outputs that are compared: floating-point, and no losses."""
    if arrays := [tensor for tensor in tensors_of(outputs) if tensor.ndim]:
        return arrays
    raise NothingComparedError(
        "A linearisation error is of a module's outputs, got none but a loss; return the outputs beside it."
    )


def relative_error(linearised: list[Tensor], network: list[Tensor], anchor: list[Tensor]) -> float:
    """‖f(x; θ_t) − f̄(x)‖ / ‖f(x; θ_t) − f(x; θ_s)‖; 0 where nothing moved."""
    moved = _distance(network, anchor)
    return _distance(network, linearised) / moved if moved else 0.0


def largest(measure: float, device: torch.device) -> float:
    """The largest measure of all processes that train together, so that all of them move their anchors or none."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return measure
    number = torch.tensor(-1.0 if math.isnan(measure) else measure, device=device, dtype=torch.float32)
    torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
    return float(number)


class Checks:
    """When an adaptive schedule is next asked: `AbstractWhen`'s rule, by the schedule's own numbers.

    `next` is the step of the next check and `interval` the steps from the last one to it.
    """

    def __init__(self, schedule: "AbstractSchedule"):
        when = _inner(schedule)
        self.tolerance = float(when.tolerance)
        self.shortest = int(when.check_every)
        self.longest = None if when.max_check_every is None else int(when.max_check_every)
        self.next = self.interval = self.shortest

    def asks(self, step: int) -> bool:
        return self.longest is None or step >= self.next

    def wants(self, step: int, measure: float) -> bool:
        """Whether to re-linearise; notes the next check."""
        from relin._schedule import next_interval

        if self.longest is not None:
            limits = self.shortest, self.longest
            self.interval = int(next_interval(measure, self.tolerance, self.interval, *limits, numpy=np))
            self.next = step + self.interval
        return measure >= self.tolerance


def _inner(schedule: Any) -> Any:
    from relin._schedule import innermost

    return innermost(schedule)


def _measure(schedule: Any) -> Any:
    from relin._schedule import WhenError, WhenFunctionMoves

    inner = type(_inner(schedule))  # one that derives from these may measure something else
    if inner is WhenError:
        return relative_error
    if inner is WhenFunctionMoves:
        return _root_mean_square
    raise ValueError(
        f"`schedule` must need no more than the module's outputs, got {inner.__name__}; use WhenError or "
        "WhenFunctionMoves, or call relinearise() where your loop decides."
    )


def _root_mean_square(linearised: list[Tensor], network: list[Tensor], anchor: list[Tensor]) -> float:
    """‖f̄(x) − f(x; θ_s)‖ / √N over N inputs."""
    return _distance(linearised, anchor) / max(1, len(linearised[0])) ** 0.5


def _distance(first: list[Tensor], second: list[Tensor]) -> float:
    parts = [
        torch.linalg.vector_norm((a - b).float() if a.element_size() < 4 else a - b)
        for a, b in zip(first, second, strict=True)
    ]
    return float(torch.linalg.vector_norm(torch.stack(parts)))


def _half(batch: Batch) -> Batch:
    """The first half of the examples, rounded down to at least one."""
    tensors = [leaf for leaf in _pytree.tree_leaves(tuple(batch)) if isinstance(leaf, Tensor) and leaf.ndim]
    if not tensors:
        return batch
    size = len(tensors[0])

    def half(leaf: Any) -> Any:
        examples = isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == size
        return leaf[: max(1, size // 2)] if examples else leaf

    return Batch(*_pytree.tree_map(half, tuple(batch)))


def _tensor(leaf: Any, like: Tensor) -> Any:
    """On the module's device, and in its precision where it is floating-point."""
    if leaf is None or isinstance(leaf, bool | int | float | str):
        return leaf
    tensor = leaf if isinstance(leaf, Tensor) else torch.as_tensor(leaf)
    return tensor.to(like.device, like.dtype if tensor.is_floating_point() else None)
