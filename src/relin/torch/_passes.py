"""One linearised forward pass: f(x; θ_s), J_s δ, and a graph whose backward is J_sᵀ.

The module runs once, at its anchor: its ordinary graph gives Jᵀu, by PyTorch's own backward, hooks and all. J δ comes
with the same pass from forward mode (`torch.autograd.forward_ad`, which `torch.func.jvp` is made of), and so has the
same dropout mask and the same statistics of the batch. Where an operator has no forward mode, J δ is the derivative
of u ↦ Jᵀu, which is linear: two backward passes more (Townsend 2017, "A new trick for calculating Jacobian vector
products").
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from relin.torch._losses import Losses
from relin.torch._outputs import mapped, tensors_of

FORWARD, DOUBLE = "forward", "double_backward"
_KEEPS = (
    "A linearised module must keep what its backward pass needs, got hooks on saved tensors, as of gradient "
    "checkpointing, which runs parts again when the anchor is no longer in the module; turn it off, such as with "
    "model.gradient_checkpointing_disable()."
)


class Predictions(NamedTuple):
    """Outputs of the linearised network f̄ = f(x; θ_s) + J_s δ, and of that at the anchor, f(x; θ_s), with its graph."""

    linearised: Any
    at_anchor: Any
    pairs: "list[tuple[Tensor, Tensor | None]]"
    """Each output f(x; θ_s), with its graph, and its J δ where it has one: what a check of J compares."""
    leaves: dict[str, Tensor]
    """The anchor as the pass differentiated it."""


class Call(NamedTuple):
    """A call of a module at an anchor."""

    module: nn.Module
    parameters: Mapping[str, Tensor]
    """θ, by name."""
    anchor: Mapping[str, Tensor]
    """θ_s, of some of the parameters; the others are those of the module."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Anchored(torch.autograd.Function):
    """θ ↦ θ_s in value, the identity in derivative: gradients at the anchor become those of θ = θ_s + δ."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, anchor: Tensor) -> Tensor:
        return anchor.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradients[0], None


def linearised_pass(call: Call, derivative: str) -> Predictions:
    """Runs the module at its anchor, in its present mode, whether gradients are on or not.

    With inputs that require a gradient, theirs is that of f̄ too, J δ included.
    """
    before = {name: at._version for name, at in call.anchor.items()}
    through = torch.is_grad_enabled() and any(t.requires_grad for t in tensors_of((call.args, call.kwargs)))
    if derivative == DOUBLE and through:
        raise ValueError(
            "Inputs of a linearised module must not require a gradient where forward mode is missing, got one that "
            "does; detach it, or use operators that have a forward mode."
        )
    predictions = _double_backward(call) if derivative == DOUBLE else _forward_mode(call, through)
    if changed := [name for name, at in call.anchor.items() if at._version != before[name]]:
        raise ValueError(
            f"A linearised module must leave its parameters to training, got {type(call.module).__name__}, whose "
            f"forward pass changes {changed[0]}; change it after the optimiser's step."
        )
    return predictions


def _forward_mode(call: Call, through: bool) -> Predictions:
    leaves = {}
    pairs: list[tuple[Tensor, Tensor | None]] = []

    def value(tensor: Tensor) -> Tensor:
        primal, tangent = forward_ad.unpack_dual(tensor)
        pairs.append((primal, None if tangent is None else tangent.detach()))
        if tangent is None:
            return tensor
        return primal + (tangent if through else tangent.detach())

    def is_linearised(tensor: Tensor) -> bool:
        return forward_ad.unpack_dual(tensor).tangent is not None

    with forward_ad.dual_level():
        duals = {}
        for name, at in call.anchor.items():
            theta = call.parameters[name]
            if through:  # the graph of J δ is kept, for its derivative by the inputs: δ has the gradient, θ_s none
                leaves[name], delta = at.detach(), theta - at
            else:
                leaves[name] = _Anchored.apply(theta, at)
                delta = theta.detach() - at
            duals[name] = forward_ad.make_dual(leaves[name], delta)
        outputs, losses = _called(call, duals, value)
        losses.check(outputs, is_linearised)
        linearised = mapped(value, outputs)
    return Predictions(linearised, outputs, _compared(pairs, losses), {} if through else leaves)


def _double_backward(call: Call) -> Predictions:
    leaves = {name: _Anchored.apply(call.parameters[name], at) for name, at in call.anchor.items()}
    if not torch.is_grad_enabled() or not any(leaf.requires_grad for leaf in leaves.values()):
        leaves = {name: leaf.detach().requires_grad_() for name, leaf in leaves.items()}
    delta = {name: call.parameters[name].detach() - at for name, at in call.anchor.items()}
    wanted = [name for name, leaf in leaves.items() if leaf.requires_grad]
    known: dict[int, tuple[Tensor, Tensor | None]] = {}

    def pushed(tensor: Tensor) -> Tensor | None:
        """J δ of one output: the derivative of the linear u ↦ Jᵀu in the direction δ."""
        if not tensor.requires_grad:
            return None
        u = torch.zeros_like(tensor, requires_grad=True)
        pulled = torch.autograd.grad(
            tensor, [leaves[n] for n in wanted], u, create_graph=True, retain_graph=True, allow_unused=True
        )
        used = [(p, delta[n]) for n, p in zip(wanted, pulled, strict=True) if p is not None and p.requires_grad]
        if not used:
            return None
        (tangent,) = torch.autograd.grad([p for p, _ in used], u, [d for _, d in used], allow_unused=True)
        return tangent

    def value(tensor: Tensor) -> Tensor:
        if id(tensor) not in known:
            with torch.enable_grad():
                known[id(tensor)] = tensor, pushed(tensor)
        tangent = known[id(tensor)][1]
        return tensor if tangent is None else tensor + tangent.detach()

    with torch.enable_grad():
        outputs, losses = _called(call, leaves, value)
    losses.check(outputs, lambda tensor: tensor.requires_grad and not losses.taken)

    def final(tensor: Tensor) -> Tensor:
        if losses.taken and tensor.ndim == 0:  # the loss, of outputs that were linearised before it
            return tensor
        return value(tensor)

    linearised = mapped(final, outputs)
    return Predictions(linearised, outputs, _compared([*known.values()], losses), leaves)


def _compared(pairs: list[tuple[Tensor, Tensor | None]], losses: Losses) -> list[tuple[Tensor, Tensor | None]]:
    """Without the losses, which are differentiable in θ and have no J δ."""
    return [pair for pair in pairs if pair[1] is not None] if losses.taken else pairs


def _called(call: Call, parameters: Mapping[str, Tensor], value: Callable[[Tensor], Tensor]) -> tuple[Any, Losses]:
    """The module's outputs with these parameters, its losses being those of the linearised outputs."""
    losses = Losses(value)
    with _differentiable(call.module), losses:
        return torch.func.functional_call(call.module, dict(parameters), call.args, call.kwargs), losses


@contextmanager
def _differentiable(module: nn.Module) -> Iterator[None]:
    """Every part by its differentiable route: the fused ones have no forward mode. `Losses` sees to attention."""
    with ExitStack() as stack:
        stack.enter_context(torch.autograd.graph.disable_saved_tensors_hooks(_KEEPS))
        if "torch._dynamo" in sys.modules:  # something may be compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        kinds = {type(part) for part in module.modules()}
        if any(issubclass(kind, nn.LSTM) for kind in kinds):
            stack.enter_context(_without_mkldnn())
        if any(issubclass(kind, nn.RNNBase) for kind in kinds):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        if torch.backends.mha.get_fastpath_enabled():
            torch.backends.mha.set_fastpath_enabled(False)
            stack.callback(torch.backends.mha.set_fastpath_enabled, True)
        yield


@contextmanager
def _without_mkldnn() -> Iterator[None]:
    flags = torch.backends.mkldnn.flags(enabled=False)

    def quietly(call: Callable[..., Any], *arguments: Any) -> None:
        with warnings.catch_warnings():  # of other devices, whenever flags are set
            warnings.simplefilter("ignore")
            call(*arguments)

    quietly(flags.__enter__)
    try:
        yield
    finally:
        quietly(flags.__exit__, None, None, None)


def disagreement(predictions: Predictions, delta: Mapping[str, Tensor], rounding: float) -> float:
    """|⟨u, J δ⟩ − ⟨Jᵀu, δ⟩| for a random u, over what rounding alone allows: above 1, J and Jᵀ are of two functions.

    `rounding` is the unit of the coarsest numbers in the pass.
    """
    outputs = [(primal, tangent) for primal, tangent in predictions.pairs if primal.requires_grad]
    if not outputs:
        return 0.0
    u = [torch.randn_like(primal) for primal, _ in outputs]
    names = [name for name, leaf in predictions.leaves.items() if leaf.requires_grad]
    leaves = [predictions.leaves[name] for name in names]
    pulled = torch.autograd.grad([p for p, _ in outputs], leaves, u, retain_graph=True, allow_unused=True)
    pushes = [(v.double(), t.double()) for v, (_, t) in zip(u, outputs, strict=True) if t is not None]
    forward = sum(float((v * t).sum()) for v, t in pushes)
    size = sum(float(t.square().sum()) for _, t in pushes) ** 0.5
    pulls = [(g.double(), delta[n].double()) for g, n in zip(pulled, names, strict=True) if g is not None]
    backward = sum(float((g * d).sum()) for g, d in pulls)
    terms = sum(float((g * d).square().sum()) for g, d in pulls) ** 0.5
    allowed = rounding**0.5 * size + 100 * rounding * terms
    return abs(forward - backward) / allowed if allowed else float(forward != backward)


def rounding_of(tensors: Sequence[Tensor]) -> float:
    """The unit of the coarsest of these tensors' numbers, and of what autocast computes with."""
    kinds = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    for device in {tensor.device.type for tensor in tensors}:
        if torch.is_autocast_enabled(device):
            kinds.add(torch.get_autocast_dtype(device))
    return max((torch.finfo(kind).eps for kind in kinds), default=torch.finfo(torch.float32).eps)
