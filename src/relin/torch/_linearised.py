"""`Linearised`: a PyTorch module that trains by its linearisation, in the place of the module."""

import functools
import inspect
import math
import warnings
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relin.torch import _passes, _schedules
from relin.torch._attached import Attached, trains
from relin.torch._modules import check_dense, check_module, detached, ordinary, unmoved
from relin.torch._outputs import mapped, tensors_of

if TYPE_CHECKING:
    from relin._schedule import AbstractSchedule

Tensors = dict[str, Float[Tensor, "..."]]
Parameters = dict[str, nn.Parameter]
_SHARED = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
"""What `nn.Module` keeps of its parts, in dictionaries that the wrapper shares with the module."""
_UNCOUNTED = 10
"""Calls in training away from the anchor, without a step, after which a forgotten `step()` is told."""


class Linearised(nn.Module):
    """A module that is trained by its linearisation f̄(x) = f(x; θ_s) + J_s(x) δ, and called as the module is.

    Its parameters are the module's own, θ = θ_s + δ, under the same names; the anchor θ_s is kept beside them, and
    δ = θ − θ_s. So weight decay, clipping, moving averages, trust ratios and checkpoints are those of θ, whatever the
    optimiser: with `Every(1)` training is the module's own, bit for bit and at its cost.

    A loop calls `step()` after the optimiser's, or `attach(optimizer)` once. Where the schedule says so, the next call
    with gradients on moves the anchor first. Buffers move in forward passes of training as the module's do; dropout has
    one mask for f and J δ. In evaluation too a call gives f̄; `network(x)` is f(x; θ). With `Every(1)` a call is the
    module's own, and no anchor is kept.

    **Arguments:**

    - `module`: a `torch.nn.Module`, which is shared, not copied: as it is trained, so is the module.
    - `schedule`: when to re-linearise, such as `relin.Every(64)`; `None` leaves it to `relinearise()`.
    - `derivative`: how J δ is found. `"forward"`: forward mode. `"double_backward"`: by two backward passes, which
      needs no forward mode of the operators. `"auto"`: forward mode, unless an operator has none or it is not the
      transpose of the module's backward pass, as for straight-through estimators; says so once, and `derivatives`
      tells.

    **Raises:** `TypeError` if `module` is no module, is one already or has parameters without values; `ValueError` for
    a schedule that needs more than outputs, for hooks on gradients of modules, and for `derivative`. A call between two
    re-linearisations raises `ValueError` for a module whose Jacobian it cannot have. Warns once where parameters are
    trained and no step is counted.
    """

    def __init__(
        self,
        module: nn.Module,
        schedule: "AbstractSchedule | None" = None,
        *,
        derivative: Literal["auto", "forward", "double_backward"] = "auto",
    ):
        check_module(module)
        if isinstance(module, Linearised):
            raise TypeError("`module` must be an ordinary module, got a Linearised one; pass its merged().")
        _schedules.check_schedule(schedule)
        if derivative not in ("auto", _passes.FORWARD, _passes.DOUBLE):
            raise ValueError(
                f'`derivative` must be "auto", "forward" or "double_backward", got {derivative!r}; leave it out.'
            )
        super().__init__()
        for name in _SHARED:
            self.__dict__[name] = getattr(module, name)
        self.training = module.training
        self.schedule = schedule
        self.derivatives: dict[bool, str] = {}
        self._derivative = derivative
        self._anchor: Tensors | None = None
        self._versions: dict[str, int] = {}
        self._moved = self._restored = False
        self._steps = self._updates = self._uncounted = 0
        self._pending = False
        self._checks = _schedules.Checks(schedule) if schedule is not None and schedule.adaptive else None
        self._attached: Attached | None = None
        self._memory: list[Tensor] = []
        self.register_load_state_dict_post_hook(_loaded)
        object.__setattr__(self, "__class__", _class_for(type(module)))
        self.__dict__["network"] = module

    network: nn.Module
    """The module itself: f(·; θ), as it is without linearisation."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The linearised outputs f̄, in the form of the module's own."""
        self._restored = False
        training = torch.is_grad_enabled()
        if training and (self._anchor is None or (self._pending and self._wants(args, kwargs))):
            self.relinearise()
        if self._anchor is None:
            return self.network(*args, **kwargs)
        own = dict(self.named_parameters())
        self._anchor_thawed(own)
        if self._at_anchor(own):
            return self.network(*args, **kwargs)
        if training and not self._steps:
            self._warn_of_no_step()
        return self._pass(own, args, kwargs).linearised

    def step(self) -> None:
        """Counts one step of the optimiser. Where the schedule is due, the next call with gradients on asks it.

        **Raises:** `RuntimeError` where an optimiser that `attach` was given does so.
        """
        if self._attached is not None:
            raise RuntimeError(
                "step() must be called once a step, got a call beside the optimiser's own after attach(); leave it out."
            )
        self._advance()

    def attach(self, optimizer: torch.optim.Optimizer) -> Attached:
        """Calls `step()` after each step of the optimiser, until `remove()` of what is returned.

        **Raises:** `ValueError` for an optimiser of other parameters, and if there is one already.
        """
        if self._attached is not None:
            raise ValueError("One optimiser may count the steps, got a second; call remove() of the first's hook.")
        if not trains(optimizer, self):
            raise ValueError(
                f"`optimizer` must train this module, got {type(optimizer).__name__} of other parameters; make it of "
                "model.parameters()."
            )
        self._attached = Attached(self, optimizer)
        return self._attached

    @torch.inference_mode(False)
    @torch.no_grad()
    def relinearise(self) -> None:
        """Moves the anchor to the parameters: θ_s ← θ_s + δ, δ ← 0. The optimiser's state stays."""
        self._memory = []
        if self._is_ordinary:
            self._updates += self._pending
            self._anchor, self._pending = None, False
            return
        before, self._anchor = self._anchor, {}
        self._updates += before is not None
        for name, parameter in self.named_parameters():
            was_anchored = before is not None and before.pop(name, None) is not None
            if parameter.requires_grad or was_anchored:
                self._anchor[name] = parameter.detach().clone()  # a graph may still need the one before
        self._pending = self._moved = False
        self._versions = {name: parameter._version for name, parameter in self.named_parameters()}

    def displacement(self) -> Tensors:
        """δ = θ − θ_s, by name, of the parameters that are trained; zero where no anchor was set yet."""
        own = dict(self.named_parameters())
        anchor = self._anchor or {name: p.detach() for name, p in own.items() if p.requires_grad}
        return {name: own[name].detach() - at for name, at in anchor.items()}

    def merged(self) -> nn.Module:
        """The ordinary module back, at θ: the one that was given, its parameters and buffers as training left them."""
        return self.network

    def predictions(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """f̄(x), f(x; θ) and f(x; θ_s), each in the form of the module's outputs, without gradients.

        All three in the present mode with the same dropout masks. Buffers and random numbers stay as they were.
        """
        with torch.no_grad():
            with unmoved(self.network):
                network = self.network(*args, **kwargs)
            if self._anchor is None:
                return network, network, network
            with unmoved(self.network):
                passed = self._pass(dict(self.named_parameters()), args, kwargs)
        return mapped(torch.detach, passed.linearised), network, mapped(torch.detach, passed.at_anchor)

    def linearisation_error(self, *args: Any, **kwargs: Any) -> float:
        """‖f(x; θ) − f̄(x)‖ / ‖f(x; θ) − f(x; θ_s)‖ over all floating-point outputs but single numbers (losses).

        It is 0 at an anchor. **Raises:** `ValueError` for a module that returns a loss alone.
        """
        if self._anchor is None or self._at_anchor(dict(self.named_parameters())):
            return 0.0
        return _schedules.relative_error(*map(_schedules.compared, self.predictions(*args, **kwargs)))

    @property
    def num_steps(self) -> int:
        """The optimiser's steps so far."""
        return self._steps

    @property
    def feature_updates(self) -> int:
        """How often the anchor moved: re-linearisations after the first."""
        return self._updates

    def anchor_state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside `state_dict()` to go on within a window: the anchor, and the counts."""
        checks = None if self._checks is None else [self._checks.next, self._checks.interval]
        return {
            "anchor": None if self._anchor is None else {name: at.clone() for name, at in self._anchor.items()},
            "num_steps": self._steps,
            "feature_updates": self._updates,
            "pending": self._pending,
            "checks": checks,
        }

    @torch.inference_mode(False)
    def load_anchor_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `anchor_state_dict` gave, before or after `load_state_dict`.

        **Raises:** `ValueError` for an anchor of other parameters.
        """
        own, anchor = dict(self.named_parameters()), state["anchor"]
        given = {} if anchor is None else {name: tuple(at.shape) for name, at in anchor.items()}
        if wrong := [name for name, shape in given.items() if name not in own or tuple(own[name].shape) != shape]:
            raise ValueError(
                f"The anchor must be of this module's parameters, got {wrong[0]}, which it lacks or has in another "
                "shape; load the one that was saved with these parameters."
            )
        if anchor is not None:
            anchor = {name: at.to(own[name].device, own[name].dtype, copy=True) for name, at in anchor.items()}
        self._anchor, self._restored, self._moved = None if self._is_ordinary else anchor, True, True
        self._steps, self._updates = state["num_steps"], state["feature_updates"]
        self._pending = state["pending"]
        if self._checks is not None and state["checks"] is not None:
            self._checks.next, self._checks.interval = state["checks"]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own: parameters θ and buffers, to be loaded into it with or without `Linearised`."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own. The network is linearised anew at what was loaded, unless an anchor is loaded too."""
        result = self.network.load_state_dict(*args, **kwargs)
        _loaded(self, None)
        return result

    def train(self, mode: bool = True) -> "Linearised":
        self.network.train(mode)
        self.training = self.network.training
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "network":
                raise
            return getattr(self.network, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """What the module has, and this class has not, is the module's."""
        network = self.__dict__.get("network")
        own = name in self.__dict__ or hasattr(type(self), name) or not hasattr(network, name)
        if own or network is None:
            super().__setattr__(name, value)
        if network is not None and (not own or name == "training"):
            setattr(network, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_attached": None, "_memory": []}

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _blank, (type(self.network),), self.__getstate__()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.network._load_from_state_dict(*args, **kwargs)

    def _apply(self, fn: Any, recurse: bool = True) -> "Linearised":
        super()._apply(fn, recurse)
        self._memory = []
        if self._anchor is not None:
            with torch.no_grad():
                self._anchor = {name: fn(at) for name, at in self._anchor.items()}
            self._moved = True
        return self

    def _replicate_for_data_parallel(self) -> Any:
        raise ValueError(
            "A linearised module must run in one piece, got torch.nn.DataParallel, whose copies have no parameters; "
            "use torch.nn.parallel.DistributedDataParallel."
        )

    def _advance(self) -> None:
        self._steps += 1
        self._moved = True
        if self.schedule is not None and _schedules.is_due(self.schedule, self._steps):
            self._pending = True

    @property
    def _is_ordinary(self) -> bool:
        """Whether every step re-linearises, so that no anchor is kept."""
        return self.schedule is not None and self.schedule.every_step

    def _wants(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the schedule, which is due, re-linearises before this step."""
        if self._is_ordinary:
            return True
        self._pending = False
        if self.schedule is None or self._checks is None:
            return True
        if not self._checks.asks(self._steps):
            return False
        probe = _schedules.probe_of(self.schedule, _schedules.Batch(args, kwargs), next(self.parameters()))
        predictions = self.predictions(*probe.args, **probe.kwargs)
        measure = _schedules.measured(self.schedule, *map(_schedules.compared, predictions))
        return self._checks.wants(self._steps, _schedules.largest(measure, next(self.parameters()).device))

    def _anchor_thawed(self, own: Parameters) -> None:
        """Anchors parameters that were frozen when the anchor was set, and are so no longer."""
        assert self._anchor is not None
        for name, parameter in own.items():
            if parameter.requires_grad and name not in self._anchor:
                with torch.inference_mode(False):
                    self._anchor[name] = parameter.detach().clone()
                self._versions[name] = parameter._version

    def _warn_of_no_step(self) -> None:
        from relin._schedule import Never

        self._uncounted += 1
        if self._uncounted == _UNCOUNTED and not isinstance(self.schedule, Never | None):
            warnings.warn(
                f"{type(self.network).__name__} has been trained and no step was counted, so that its schedule never "
                "re-linearises; call attach(optimizer) once, or step() after each step of the optimiser.",
                stacklevel=6,
            )

    def _at_anchor(self, own: Parameters) -> bool:
        """Whether δ = 0. What changes parameters by their `.data` leaves no trace but their values."""
        if self._moved or self._anchor is None:
            return False
        if any(own[name]._version != self._versions.get(name) for name in self._anchor):
            return False
        return all(torch.equal(own[name], at) for name, at in self._anchor.items())

    def _pass(self, own: Parameters, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _passes.Predictions:
        assert self._anchor is not None
        self._memory = []
        with ExitStack() as stack:
            if torch.is_inference_mode_enabled():  # it has no forward mode
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.no_grad())
                args, kwargs = ordinary((args, kwargs))
            call = _passes.Call(self.network, own, self._anchor, args, kwargs)
            passed = _passes.linearised_pass(call, self._decided(call))
        self._memory = passed.memory
        return passed

    def _decided(self, call: _passes.Call) -> str:
        """How J δ is found in this mode: tried once, beside the run, and compared with the backward pass."""
        if self.training in self.derivatives:
            return self.derivatives[self.training]
        check_dense(self.network)
        found = None
        args, kwargs = detached((call.args, call.kwargs))
        call = call._replace(args=args, kwargs=kwargs)
        ways = (_passes.FORWARD, _passes.DOUBLE) if self._derivative == "auto" else (self._derivative,)
        for way in ways:
            with unmoved(self.network), torch.enable_grad():
                found = self._failure(way, call)
            if found is None:
                self.derivatives[self.training] = way
                return way
            if way != ways[-1]:
                warnings.warn(
                    f"{type(self.network).__name__} is linearised by two backward passes in the place of forward mode, "
                    f'since {found}; pass derivative="double_backward" to have no warning.',
                    stacklevel=4,
                )
        raise ValueError(
            f"A linearised module must have a Jacobian, got {type(self.network).__name__}, where {found}; use "
            "PyTorch's own functions, or train it with Every(1)."
        )

    def _failure(self, way: str, call: _passes.Call) -> str | None:
        """What is in the way of this derivative, if anything is: tried at a random δ, since the run's may be zero."""
        tangent = _passes.random_tangent(call)
        displaced = {name: (at + tangent[name]).requires_grad_() for name, at in call.anchor.items()}
        try:
            passed = _passes.linearised_pass(call._replace(parameters=displaced), way)
            used = [*tensors_of((passed.linearised, call.args, call.kwargs)), *call.anchor.values()]
            apart = _passes.disagreement(passed, tangent, _passes.rounding_of(used))
        except RuntimeError as error:
            reason, lacking = (
                str(error).splitlines()[0],
                "forward mode" if way == _passes.FORWARD else "second derivative",
            )
            if isinstance(error, NotImplementedError) or reason.endswith("is not implemented"):
                return f"an operator has no {lacking} ({reason})"
            raise
        if math.isnan(apart):
            return "J δ is not finite"
        return None if apart <= 1 else "J δ is not the transpose of its backward pass"


@functools.cache
def _class_for(kind: type[nn.Module]) -> type[Linearised]:
    """`Linearised` with the signature of this module's call, which trainers read the names of columns from."""

    def forward(self: Linearised, *args: Any, **kwargs: Any) -> Any:
        return Linearised.forward(self, *args, **kwargs)

    forward.__doc__ = Linearised.forward.__doc__
    with suppress(TypeError, ValueError):
        forward.__signature__ = inspect.signature(kind.forward)  # pyright: ignore[reportFunctionMemberAccess]
    return type("Linearised", (Linearised,), {"forward": forward, "__module__": Linearised.__module__})


def _blank(kind: type[nn.Module]) -> Linearised:
    own = _class_for(kind)
    return own.__new__(own)


def _loaded(model: Linearised, _: Any) -> None:
    """After parameters were loaded: the next call linearises there, unless the anchor was loaded."""
    if not model._restored:
        model._anchor = None
    model._restored = False
