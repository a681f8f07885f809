"""Optimisers by name: their options and learning rates, and the rate's course over a run. JAX is imported to train."""

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, final

from relin._common.words import listed, shortened
from relin.study import _code

if TYPE_CHECKING:  # settings are checked before these are imported
    import numpy as np
    import optax

Decay = Literal["linear", "cosine", "none"]
DEFAULT = "momentum"


class Optimiser(Protocol):
    """What trains the runs of a study. Equal ones must be hashable and interchangeable: their runs share a program."""

    @property
    def name(self) -> str: ...

    @property
    def grid(self) -> tuple[float, ...]:
        """The learning rates offered where the settings name none."""
        ...

    def make(self, rate: Any, num_steps: int) -> "optax.GradientTransformation":
        """For a run of `num_steps` steps at a learning rate, which may be traced."""
        ...


@final
@dataclass(frozen=True)
class _Number:
    """An option: its default, and the range it is in."""

    default: float
    least: float = 0.0
    below: float = 1000.0

    @property
    def _type(self) -> Any:
        return int if isinstance(self.default, int) else int | float

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, self._type) and not isinstance(value, bool) and self.least <= value < self.below

    def __str__(self) -> str:
        kind = "whole number" if self._type is int else "number"
        return f"a {kind} of at least {self.least:g} and below {self.below:g}"


@final
@dataclass(frozen=True)
class _Word:
    """An option: its default, and the words it is one of."""

    default: str
    among: tuple[str, ...]

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.among

    def __str__(self) -> str:
        return f"one of {listed(self.among)}"


_Options = Mapping[str, _Number | _Word]


@final
@dataclass(frozen=True)
class _Kind:
    options: _Options
    grid: tuple[float, ...]
    usual: float
    """The rate of a single run that names none."""


def _moments(b1: float, b2: float) -> dict[str, _Number]:
    return {"b1": _Number(b1, below=1), "b2": _Number(b2, below=1)}


_EPS = {"eps": _Number(1e-8, least=1e-30)}
_NONE: _Options = {}
_ADAM_GRID = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
_OUTPUT_AXIS, _UNKNOWN = "output_axis", "none"
_AXES = {"last": -1, "first": 0}
"""Of convolution kernels, the axis of the outputs: the last in relin's and Flax' networks, the first in Equinox' and
PyTorch's. With none their optimiser is Adam, as it must be where the layout is not known."""
_KINDS = {
    "sgd": _Kind(_NONE, (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003), 0.1),
    "momentum": _Kind(_NONE, (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003), 0.03),
    "adam": _Kind(_moments(0.9, 0.999) | _EPS, _ADAM_GRID, 0.001),
    "adamw": _Kind(_moments(0.9, 0.999) | _EPS | {"weight_decay": _Number(0.01)}, _ADAM_GRID, 0.001),
    "lion": _Kind(
        _moments(0.9, 0.99) | {"weight_decay": _Number(0.001)},
        (0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001, 0.00003),
        0.001,
    ),
    "muon": _Kind(
        {
            "beta": _Number(0.95, below=1),
            "ns_steps": _Number(5, least=1, below=101),
            "weight_decay": _Number(0.0),
            "consistent_rms": _Number(0.2, least=1e-9),
            "adam_b1": _Number(0.9, below=1),
            "adam_b2": _Number(0.999, below=1),
            **_EPS,
            _OUTPUT_AXIS: _Word("last", (*_AXES, _UNKNOWN)),
        },
        _ADAM_GRID,
        0.003,
    ),
}
_MOMENTUM = {"sgd": 0.0, "momentum": 0.9}
"""β of each optimiser that has one."""


def names() -> tuple[str, ...]:
    return tuple(_KINDS)


def grid_of(name: str) -> list[float]:
    """The learning rates offered where the settings name none, decreasing."""
    return list(_KINDS[name].grid if name in _KINDS else _ADAM_GRID)


def usual_rate(name: str) -> float:
    """The learning rate of a single run that names none."""
    return _KINDS[name].usual if name in _KINDS else 0.001


def check_name(name: str) -> str:
    if name not in _KINDS and not _code.is_code(name):
        raise ValueError(f"the optimisers are {listed(names())}; a function of your own is named FILE.py:NAME")
    return name


def checked_momentum(name: str, momentum: float | None) -> float | None:
    """β, by default the optimiser's own; none of one that is not gradient descent.

    **Raises:** `ValueError` for a β that the optimiser does not take.
    """
    if momentum is None:
        return _MOMENTUM.get(name)
    if name not in _KINDS:
        raise ValueError("momentum is of sgd and momentum, and an optimiser of your own sets its own; leave it out")
    if name not in _MOMENTUM:
        own = listed(_KINDS[name].options)
        raise ValueError(f"{name} is not SGD with momentum, and has options of its own; set {own} in optimiser_options")
    if name == "sgd" and momentum != 0:
        raise ValueError("sgd has no momentum; name the optimiser momentum")
    return momentum


def checked_options(name: str, given: Mapping[str, Any], unlike: bool = False) -> dict[str, float | str]:
    """All options of an optimiser, those that are not given at their defaults.

    **Arguments:**

    - `unlike`: whether kernels of convolutions are no matrices unless it is said: the network is the user's own, or the
      settings were stored before they could be.

    **Raises:** `ValueError` for one that it does not have, or that is out of range.
    """
    if name not in _KINDS:
        return dict(given)
    known = _KINDS[name].options
    if unknown := sorted(given.keys() - known.keys()):
        own = f"its options are {listed(known)}" if known else "its only setting is momentum"
        raise ValueError(f"{name} has no option {listed(unknown)}; {own}")
    for option, value in given.items():
        if value not in known[option]:
            raise ValueError(f"{option} of {name} must be {known[option]}, got {shortened(value)}")
    other = {_OUTPUT_AXIS: _UNKNOWN} if unlike else {}
    return {option: given.get(option, other.get(option, kind.default)) for option, kind in known.items()}


@final
@dataclass(frozen=True)
class RateCourse:
    """The learning rate over a run: a linear warm-up in a share of the steps, then the decay in the others.

    Of T steps the first W = ⌊warm_up · T⌋ have the rates η (t + 1)/(W + 1), t from 0: no step is lost at a rate of 0.
    From step W, at the full rate η, it falls to 0 at step T along a line or half a cosine, or stays.
    """

    decay: Decay
    warm_up: float

    def warm_up_steps(self, num_steps: int) -> int:
        return math.floor(self.warm_up * num_steps + 1e-9)  # 0.29 · 100 is 28.999…

    def shares(self, steps: "np.ndarray", num_steps: int) -> "np.ndarray":
        """The rate before each step, or between two, as a part of the full one; shape (steps,)."""
        import numpy as np

        first = self.warm_up_steps(num_steps)
        done = np.clip((steps - first) / (num_steps - first), 0.0, 1.0)
        cosine = 0.5 * (1 + np.cos(math.pi * done))
        left = {"linear": 1 - done, "cosine": cosine, "none": np.ones(done.shape)}[self.decay]
        return np.where(steps < first, (steps + 1) / (first + 1), left)

    def rates(self, rate: Any, num_steps: int) -> Any:
        """As Optax's optimisers take it: the rate, which may be traced, where it stays, else a schedule."""
        import optax

        first = self.warm_up_steps(num_steps)
        after = {
            "linear": lambda: optax.linear_schedule(rate, 0.0, num_steps - first),
            "cosine": lambda: optax.cosine_decay_schedule(rate, num_steps - first),
            "none": lambda: optax.constant_schedule(rate) if first else rate,
        }[self.decay]()
        if not first:
            return after
        return optax.join_schedules([optax.linear_schedule(rate / (first + 1), rate, first), after], [first])


@final
@dataclass(frozen=True)
class NamedOptimiser:
    """One of `names()`, with what `checked_momentum` and `checked_options` gave."""

    name: str
    momentum: float | None
    options: tuple[tuple[str, float | str], ...]
    course: RateCourse

    @property
    def grid(self) -> tuple[float, ...]:
        return _KINDS[self.name].grid

    def make(self, rate: Any, num_steps: int) -> "optax.GradientTransformation":
        """Optax's. `muon` treats matrices by Muon, kernels of convolutions as matrices from all that an output sees to
        the outputs, and all other parameters by its Adam."""
        import optax

        from relin.preset import matrices

        rates = self.course.rates(rate, num_steps)
        if self.name in _MOMENTUM:
            return optax.sgd(rates, momentum=self.momentum or None)
        make: Any = {"adam": optax.adam, "adamw": optax.adamw, "lion": optax.lion, "muon": optax.contrib.muon}
        options: dict[str, Any] = dict(self.options)
        if (axis := _AXES.get(options.pop(_OUTPUT_AXIS, _UNKNOWN))) is not None:
            options["muon_weight_dimension_numbers"] = matrices(axis)
        return make[self.name](rates, **options)


@final
@dataclass(frozen=True)
class OwnOptimiser:
    """A function of the learning rate, with the number of steps as its second argument if it has two.

    The course of the rate over a run is its own: `decay` and `warm_up` do not change it.
    """

    place: str
    digest: str
    options: str
    """Its further keyword arguments, as JSON."""

    @property
    def name(self) -> str:
        return _code.name_of(self.place)

    @property
    def grid(self) -> tuple[float, ...]:
        return _ADAM_GRID

    def make(self, rate: Any, num_steps: int) -> "optax.GradientTransformation":
        """**Raises:** `ValueError` if the function fails, or gives no optimiser that a run can be trained with."""
        import optax

        function = _code.load(self.place, self.digest)
        try:
            given = (rate, num_steps)[: _num_positional(function)]
            optimiser = function(*given, **json.loads(self.options))
        except Exception as error:
            raise ValueError(
                f"optimiser: {self.name} could not make an optimiser of a learning rate ({type(error).__name__}: "
                f"{error}); correct it there."
            ) from error
        if not isinstance(optimiser, optax.GradientTransformation | optax.MultiSteps):
            raise ValueError(
                f"optimiser: {self.name} must return an optax.GradientTransformation, got {type(optimiser).__name__}."
            )
        return cast("optax.GradientTransformation", optimiser)


def _num_positional(function: Any) -> int:
    """How many of rate and number of steps a function takes: the second where it has no default."""
    kinds = inspect.Parameter
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return 1
    plain = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    return 2 if len(plain) > 1 and plain[1].default is kinds.empty else 1
