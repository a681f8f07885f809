"""One linearised forward pass: f(x; θ_s), J_s δ, and a graph whose backward is J_sᵀ.

The module runs once, at its anchor: its ordinary graph gives Jᵀu, by PyTorch's own backward, hooks and all. J δ comes
with the same pass from forward mode (`torch.autograd.forward_ad`, which `torch.func.jvp` is made of), and so has the
same dropout mask and the same statistics of the batch. Where an operator has no forward mode, J δ is the derivative
of u ↦ Jᵀu, which is linear: two backward passes more (Townsend 2017, "A new trick for calculating Jacobian vector
products").
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from relin.torch._losses import Gate, Losses
from relin.torch._outputs import mapped, tensors_of

FORWARD, DOUBLE = "forward", "double_backward"
_KEEPS = (
    "A linearised module must keep what its backward pass needs, got hooks on saved tensors, as of gradient "
    "checkpointing, which runs parts again when the anchor is no longer in the module; turn it off, such as with "
    "model.gradient_checkpointing_disable()."
)
_CACHED = 4 * 2**20
"""Bytes that a pass computes on the way, up to which memory that is used again at once costs less than kept memory."""


class Predictions(NamedTuple):
    """Outputs of the linearised network f̄ = f(x; θ_s) + J_s δ, and of that at the anchor, f(x; θ_s), with its graph."""

    linearised: Any
    at_anchor: Any
    pairs: "list[tuple[Tensor, Tensor | None]]"
    """Each output f(x; θ_s), with its graph, and its J δ where it has one: what a check of J compares."""
    leaves: dict[str, Tensor]
    """The anchor as the pass differentiated it."""
    gate: Gate
    """Before the losses among the outputs, which have a graph and no J δ."""
    memory: list[Tensor]
    """J δ of a large pass, with a graph that nothing needs, in a CPU's memory: until the next pass begins it keeps
    those pages, which the C library would give back to the system in this pass and wait for in the backward pass."""


class Call(NamedTuple):
    """A call of a module at an anchor."""

    module: nn.Module
    parameters: Mapping[str, Tensor]
    """θ, by name."""
    anchor: Mapping[str, Tensor]
    """θ_s, of some of the parameters; the others are those of the module."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Linearised(torch.autograd.Function):
    """f + J δ, differentiated as f is, once: J δ has no graph, so that a derivative of the gradient would lack it."""

    @staticmethod
    def forward(ctx: Any, f: Tensor, change: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.parameters = parameters
        return f + change

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = gradients
        if gradient is not None:
            if torch.is_grad_enabled():
                raise RuntimeError(
                    "A linearised module has no second derivatives, got a backward pass with create_graph=True; leave "
                    "it out, or take them of .network."
                )
            # The way of FSDP and others; PyTorch has no hook of the whole backward pass that is documented.
            _ENGINE.queue_callback(lambda: _separate(ctx.parameters, gradient))
        return gradient, None, None


_ENGINE: Any = torch.autograd.Variable._execution_engine  # pyright: ignore[reportAttributeAccessIssue]


def _separate(parameters: Sequence[Tensor], incoming: Tensor) -> None:
    """Gradients in memory of their own, at the end of a backward pass.

    PyTorch copies a gradient that reaches two parameters, as those of x + p + q do, if it sees one tensor. Through
    views, which parameters in forward mode are, it sees two.
    """
    gradients = [gradient for p in parameters if (gradient := p.grad) is not None]
    storages = {gradient.untyped_storage().data_ptr() for gradient in gradients}
    storage = incoming.untyped_storage()
    if len(storages) == len(gradients) and storage.data_ptr() not in storages:
        return
    end = storage.data_ptr() + storage.nbytes()
    last = 0
    for parameter in sorted(parameters, key=lambda p: 0 if p.grad is None else p.grad.data_ptr()):
        if (gradient := parameter.grad) is not None:
            start = gradient.data_ptr()
            stop = start + gradient.numel() * gradient.element_size()  # gradients have no gaps
            if start < last or (start < end and storage.data_ptr() < stop):
                with torch.no_grad():
                    parameter.grad = gradient.clone()
            last = max(last, stop)


def _anchored(theta: Tensor, anchor: Tensor) -> Tensor:
    """θ_s in value, θ in the graph: gradients at the anchor become those of θ = θ_s + δ.

    A view with other data, and no function of ours: those keep the backward pass waiting, once for each parameter.
    """
    if not torch.is_grad_enabled():
        return anchor.detach()
    leaf = theta.expand_as(theta)
    leaf.data = anchor
    return leaf


def linearised_pass(call: Call, derivative: str) -> Predictions:
    """Runs the module at its anchor, in its present mode, whether gradients are on or not.

    With inputs that require a gradient, theirs is that of f̄ too, J δ included.
    """
    before = _versions(call)
    through = torch.is_grad_enabled() and any(t.requires_grad for t in tensors_of((call.args, call.kwargs)))
    if derivative == DOUBLE and through:
        raise ValueError(
            "Inputs of a linearised module must not require a gradient where forward mode is missing, got one that "
            "does; detach it, or use operators that have a forward mode."
        )
    predictions = _double_backward(call) if derivative == DOUBLE else _forward_mode(call, through)
    if changed := [name for name, was, now in zip(call.anchor, before, _versions(call), strict=True) if was != now]:
        raise ValueError(
            f"A linearised module must leave its parameters to training, got {type(call.module).__name__}, whose "
            f"forward pass changes {changed[0]}; change it after the optimiser's step."
        )
    return predictions


def _versions(call: Call) -> list[int]:
    """Of what the module is called with: views of θ, or θ_s itself."""
    return [call.parameters[name]._version + at._version for name, at in call.anchor.items()]


def _trained(call: Call) -> list[Tensor]:
    return [call.parameters[name] for name in call.anchor if call.parameters[name].is_leaf]


def _forward_mode(call: Call, through: bool) -> Predictions:
    leaves, trained = {}, _trained(call)
    pairs: list[tuple[Tensor, Tensor | None]] = []
    memory: list[Tensor] = []
    gate = Gate()

    def value(tensor: Tensor) -> Tensor:
        primal, tangent = forward_ad.unpack_dual(tensor)
        pairs.append((primal, None if tangent is None else tangent.detach()))
        if tangent is not None and tangent.grad_fn is not None and tangent.device.type == "cpu" and not through:
            memory.append(tangent)
        if tangent is None:
            return tensor
        return primal + tangent if through else _Linearised.apply(primal, tangent.detach(), trained)

    def is_linearised(tensor: Tensor) -> bool:
        return forward_ad.unpack_dual(tensor).tangent is not None

    with forward_ad.dual_level():
        duals = {}
        for name, at in call.anchor.items():
            theta = call.parameters[name]
            if through:  # the graph of J δ is kept, for its derivative by the inputs: δ has the gradient, θ_s none
                leaves[name], delta = at.detach(), theta - at
            else:
                leaves[name] = _anchored(theta, at)
                delta = theta.detach() - at
            duals[name] = forward_ad.make_dual(leaves[name], delta)
        if duals and forward_ad.unpack_dual(next(iter(duals.values()))).tangent is None:
            raise ValueError(
                "A linearised module must be called where PyTorch's forward mode is on, got a call inside an "
                "autograd.Function, such as gradient checkpointing with use_reentrant=True; call it outside."
            )
        losses = Losses(value, gate)
        outputs = _called(call, duals, losses)
        losses.check(outputs, is_linearised)
        linearised = mapped(value, outputs)
    kept = memory if losses.num_bytes > _CACHED else []
    return Predictions(linearised, outputs, pairs, {} if through else leaves, gate, kept)


def _double_backward(call: Call) -> Predictions:
    leaves = {name: _anchored(call.parameters[name], at) for name, at in call.anchor.items()}
    leaves = {n: leaf if leaf.requires_grad else leaf.detach().requires_grad_() for n, leaf in leaves.items()}
    deltas = [call.parameters[name].detach() - at for name, at in call.anchor.items()]
    known: dict[int, tuple[Tensor, Tensor | None]] = {}
    trained = _trained(call)
    gate = Gate()  # in no cycle of references, which would keep the graph

    def pushed(tensor: Tensor) -> Tensor | None:
        """J δ of one output: the derivative of the linear u ↦ Jᵀu in the direction δ."""
        if not tensor.requires_grad:
            return None
        u = torch.zeros_like(tensor, requires_grad=True)
        with gate.shut():
            pulled = torch.autograd.grad(tensor, [*leaves.values()], u, create_graph=True, allow_unused=True)
        used = [(p, d) for p, d in zip(pulled, deltas, strict=True) if p is not None and p.requires_grad]
        if not used:
            return None
        (tangent,) = torch.autograd.grad([p for p, _ in used], u, [d for _, d in used], allow_unused=True)
        return tangent

    def tangent_of(tensor: Tensor) -> Tensor | None:
        if id(tensor) not in known:
            with torch.enable_grad():
                known[id(tensor)] = tensor, pushed(tensor)
        return known[id(tensor)][1]

    def value(tensor: Tensor) -> Tensor:
        tangent = tangent_of(tensor)
        return tensor if tangent is None else _Linearised.apply(tensor, tangent.detach(), trained)

    graph, losses = torch.is_grad_enabled(), Losses(value, gate)
    with torch.enable_grad():
        outputs = _called(call, leaves, losses)
    losses.check(outputs, lambda tensor: tangent_of(tensor) is not None)
    linearised = mapped(value if graph else lambda tensor: value(tensor).detach(), outputs)
    return Predictions(linearised, outputs, [*known.values()], leaves, gate, [])


def _called(call: Call, parameters: Mapping[str, Tensor], losses: Losses) -> Any:
    """The module's outputs with these parameters, its losses being those of the linearised outputs."""
    compiled = "torch._dynamo" in sys.modules  # something may be
    with (
        torch.autograd.graph.disable_saved_tensors_hooks(_KEEPS),
        torch.compiler.set_stance("force_eager") if compiled else nullcontext(),
        losses,
    ):
        return torch.func.functional_call(call.module, dict(parameters), call.args, call.kwargs)


def random_tangent(call: Call) -> dict[str, Tensor]:
    """A random v of each parameter's own scale; of their mean scale where a parameter is zero.

    It is zero in embeddings' rows of padding, which have no gradient on purpose.
    """
    scales = {name: float(at.float().square().mean().sqrt()) for name, at in call.anchor.items() if at.numel()}
    typical = sum(scales.values()) / max(1, len(scales)) or 1.0
    tangent = {name: torch.randn_like(at) * (scales.get(name) or typical) for name, at in call.anchor.items()}
    embeddings = [part for part in call.module.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)]
    for name, v in tangent.items():
        for part in embeddings:
            if part.weight is call.parameters[name] and part.padding_idx is not None:
                v[part.padding_idx] = 0
    return tangent


def disagreement(predictions: Predictions, tangent: Mapping[str, Tensor], rounding: float) -> float:
    """‖J v − (Jᵀ)ᵀ v‖ over what rounding allows: above 1, J and Jᵀ are of two functions.

    Jᵀ is the module's backward pass, and ⟨u, (Jᵀ)ᵀ v⟩ = ⟨Jᵀu, v⟩: the norm is the root mean square of products with
    random u. Allowed is √ε of the larger norm, where ε, `rounding`, is the unit of the coarsest numbers in the pass.
    """
    pushed = [(primal, t) for primal, t in predictions.pairs if t is not None]
    pulling = [primal for primal, _ in predictions.pairs if primal.requires_grad]
    apart, backward = 0.0, 0.0
    for _ in range(_PRODUCTS):
        u = {id(primal): torch.randn_like(primal) for primal, _ in predictions.pairs}
        pulled = _pulled(predictions, pulling, [u[id(primal)] for primal in pulling])
        there = sum(_product(g, tangent[name]) for name, g in pulled.items())
        apart += (sum(_product(u[id(primal)], t) for primal, t in pushed) - there) ** 2 / _PRODUCTS
        backward += there**2 / _PRODUCTS
    size = max(backward, sum(_product(t, t) for _, t in pushed))
    return (apart / (rounding * size)) ** 0.5 if size else 0.0


_PRODUCTS = 8


def _pulled(predictions: Predictions, outputs: list[Tensor], u: list[Tensor]) -> dict[str, Tensor]:
    """Jᵀu, of the parameters that these outputs depend on."""
    if not outputs:
        return {}
    leaves = {name: leaf for name, leaf in predictions.leaves.items() if leaf.requires_grad}
    with predictions.gate.shut():
        found = torch.autograd.grad(outputs, [*leaves.values()], u, retain_graph=True, allow_unused=True)
    return {name: g for name, g in zip(leaves, found, strict=True) if g is not None}


def _product(a: Tensor, b: Tensor) -> float:
    """⟨a, b⟩, in double precision; its real part where they are complex."""
    wide = torch.complex128 if a.is_complex() else torch.float64
    return float(torch.vdot(a.detach().to(wide).flatten(), b.detach().to(wide).flatten()).real)


def rounding_of(tensors: Sequence[Tensor]) -> float:
    """The unit of the coarsest of these tensors' numbers, and of what autocast and accelerators compute with."""
    kinds = {tensor.dtype for tensor in tensors}
    for device in {tensor.device.type for tensor in tensors}:
        if torch.is_autocast_enabled(device):
            kinds.add(torch.get_autocast_dtype(device))
        if device != "cpu":  # TF32, in which they multiply float32 where they are allowed to
            kinds.add(torch.float16)
    return max((torch.finfo(kind).eps for kind in kinds), default=torch.finfo(torch.float32).eps)
