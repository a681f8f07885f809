"""The modes of a PyTorch module."""

import copy
from typing import Any


def in_mode(module: Any, batch_statistics: bool, dropout: bool) -> Any:
    """A copy in which BatchNorm uses these statistics, and all that drops out does or does not.

    **Raises:** `ValueError` for batch statistics without a BatchNorm.
    """
    module = copy.deepcopy(module).train(dropout)
    norms = _norms(module)
    if batch_statistics and not norms:
        raise ValueError(
            f"`module` must have BatchNorm for batch statistics, got {type(module).__name__} without; leave "
            "`statistics` out."
        )
    for norm in norms:
        norm.train(batch_statistics)
        norm.register_forward_pre_hook(_update)
    return module


def check_as_it_is(module: Any) -> None:
    """Raises `ValueError` for a module in a mode of training that was not asked for."""
    import torch

    drops = (torch.nn.modules.dropout._DropoutNd, torch.nn.MultiheadAttention, torch.nn.RNNBase)
    for name, part in module.named_modules():
        drop = isinstance(part, drops) and getattr(part, "p", getattr(part, "dropout", 0)) > 0
        if part.training and (drop or part in _norms(part)):
            raise ValueError(
                f"`module` must say how it is trained, got {name or 'one'} ({type(part).__name__}) in training mode; "
                "pass `statistics` and `dropout`, or call module.eval() first."
            )


def _norms(module: Any) -> list[Any]:
    import torch

    kind = torch.nn.modules.batchnorm._BatchNorm
    return [part for part in module.modules() if isinstance(part, kind)]


def _update(norm: Any, inputs: tuple[Any, ...]) -> None:
    """Moves the running statistics of a BatchNorm in training as PyTorch does, which torchax's function of it leaves
    out: a share `momentum` of the batch's mean and unbiased variance, or all batches alike without a momentum."""
    if not norm.training or norm.running_mean is None:
        return
    (x,) = inputs
    axes = [0, *range(2, x.ndim)]
    momentum = norm.momentum
    if momentum is None:
        momentum = 1.0 / (norm.num_batches_tracked + 1).to(x.dtype)
    norm.running_mean = (1 - momentum) * norm.running_mean + momentum * x.mean(axes)
    norm.running_var = (1 - momentum) * norm.running_var + momentum * x.var(axes, unbiased=True)
