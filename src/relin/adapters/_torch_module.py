"""The modes of a PyTorch module."""

import copy
from typing import Any

from relin._core.names import some


def in_mode(module: Any, batch_statistics: bool, dropout: bool) -> Any:
    """A copy in which BatchNorm and what else moves buffers in training does so or not, and dropout is on or not.

    A part of another kind that has buffers is in training mode for either: it may do both.

    **Raises:** `ValueError` for batch statistics of a module without buffers.
    """
    module = copy.deepcopy(module).train(dropout)
    if batch_statistics and not (batch_norms(module) or any(True for _ in module.buffers())):
        raise ValueError(
            f"`module` must have BatchNorm or other buffers for batch statistics, got {type(module).__name__} without; "
            "leave `statistics` out."
        )
    for part in module.modules():
        if part in batch_norms(part) or _iterates(part):
            part.training = batch_statistics
        elif batch_statistics and part._buffers:
            part.training = True
    for norm in batch_norms(module):
        norm.register_forward_pre_hook(_update)
    return module


def copied(module: Any) -> Any:
    """A copy without the traced tensors that forward passes left in its attributes."""
    from torch.utils import _pytree
    from torchax.tensor import Tensor
    from torchax.view import View

    left = _pytree.tree_leaves([list(vars(part).values()) for part in module.modules()])
    return copy.deepcopy(module, {id(leaf): None for leaf in left if isinstance(leaf, Tensor | View)})


def check_as_it_is(module: Any) -> None:
    """Raises `ValueError` for a module in a mode of training that was not asked for."""
    import torch

    drops = (torch.nn.modules.dropout._DropoutNd, torch.nn.MultiheadAttention, torch.nn.RNNBase)
    for name, part in module.named_modules():
        drop = isinstance(part, drops) and getattr(part, "p", getattr(part, "dropout", 0)) > 0
        if part.training and (drop or _iterates(part) or part in batch_norms(part)):
            raise ValueError(
                f"`module` must say how it is trained, got {name or 'one'} ({type(part).__name__}) in training mode; "
                "pass `statistics` and `dropout`, or call module.eval() first."
            )


def check_values(module: Any) -> None:
    """Raises `ValueError` for parameters and buffers of lazy modules that have no values yet."""
    from torch.nn.parameter import is_lazy

    if missing := [name for name, value in [*module.named_parameters(), *module.named_buffers()] if is_lazy(value)]:
        raise ValueError(
            f"The parameters of `module` must have values, got {some(missing)} of a lazy module, which its first call "
            "makes; call the module once with a batch of inputs."
        )


def check_hooks(module: Any) -> None:
    """Raises `ValueError` for hooks that PyTorch calls with gradients."""
    hooks = ("_backward_hooks", "_backward_pre_hooks", "_post_accumulate_grad_hooks")
    for name, part in [*module.named_modules(), *module.named_parameters()]:
        if any(getattr(part, hook, None) for hook in hooks):
            raise ValueError(
                f"`module` must be differentiated as it is, got {name or 'one'} ({type(part).__name__}) with a hook on "
                "its gradient, which relin does not call; remove it, and change gradients with an Optax optimiser."
            )


def batch_norms(module: Any) -> list[Any]:
    """Its parts with statistics of the batch in training; instance normalisation only if it keeps running ones."""
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.instancenorm import _InstanceNorm

    def kept(part: Any) -> bool:
        return isinstance(part, _BatchNorm) or (isinstance(part, _InstanceNorm) and part.running_mean is not None)

    return [part for part in module.modules() if kept(part)]


def _iterates(part: Any) -> bool:
    """Whether it takes steps of spectral normalisation's power iteration in training, in either of PyTorch's ways."""
    from torch.nn.utils.parametrizations import _SpectralNorm
    from torch.nn.utils.spectral_norm import SpectralNorm

    return isinstance(part, _SpectralNorm) or any(
        isinstance(hook, SpectralNorm) for hook in part._forward_pre_hooks.values()
    )


def _update(norm: Any, inputs: tuple[Any, ...]) -> None:
    """Moves the running statistics of a BatchNorm in training as PyTorch does, which torchax's function of it leaves
    out: a share `momentum` of the batch's mean and unbiased variance, or all batches alike without a momentum."""
    if not norm.training or norm.running_mean is None:
        return
    from torch.nn.modules.instancenorm import _InstanceNorm

    (x,) = inputs
    x = x.detach()
    momentum = norm.momentum
    by_example = isinstance(norm, _InstanceNorm)
    if by_example:  # statistics of each example, and their mean
        axes, momentum = [*range(2, x.ndim)], momentum or 0.0
        mean, variance = x.mean(axes).mean(0), x.var(axes, unbiased=True).mean(0)
    else:
        axes = [0, *range(2, x.ndim)]
        mean, variance = x.mean(axes), x.var(axes, unbiased=True)
        if momentum is None:
            momentum = 1.0 / (norm.num_batches_tracked + 1).to(x.dtype)
    norm.running_mean = (1 - momentum) * norm.running_mean + momentum * mean
    norm.running_var = (1 - momentum) * norm.running_var + momentum * variance
