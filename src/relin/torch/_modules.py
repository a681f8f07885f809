"""What `Linearised` needs of modules: which it takes, and passes that leave no trace."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from relin._common.random_states import random_states_kept


def check_module(module: Any) -> None:
    """Raises `TypeError` or `ValueError` for a module that cannot be linearised, as far as its parts tell."""
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"`module` must be a torch.nn.Module, got {type(module).__name__}; use relin.train for networks of JAX."
        )
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise TypeError(
                f"The parameters of `module` must have values, got {name}, which a first call makes; call the module "
                "once."
            )
        if parameter.requires_grad and not parameter.is_floating_point():
            raise TypeError(
                f"Parameters that are trained must be real, got {name} of {parameter.dtype}; keep real and imaginary "
                "parts apart."
            )
        if type(parameter.data) is not Tensor:
            raise TypeError(
                f"Parameters must be plain tensors, got {name} of {type(parameter.data).__name__}; wrap the module "
                "before it is split over devices, in DistributedDataParallel."
            )
    hooks = ("_backward_hooks", "_backward_pre_hooks")
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise TypeError(
                f"`module` must run with parameters that it is given, got {name or 'one'} of TorchScript, which uses "
                "its own; pass the module that it was made from."
            )
        if any(getattr(part, hook, None) for hook in hooks):
            raise ValueError(
                f"`module` must be differentiated as it is, got {name or 'one'} ({type(part).__name__}) with a hook on "
                "its gradient, which need not be linear; remove it, or hook the gradients of parameters."
            )


def check_dense(module: nn.Module) -> None:
    """Raises `ValueError` for an embedding that is trained by sparse gradients."""
    embeddings = (part for part in module.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag))
    if any(part.sparse and part.weight.requires_grad for part in embeddings):
        raise ValueError(
            "A linearised module must have dense gradients, got an embedding with sparse=True; set its `sparse` to "
            "False, and take an optimiser for dense gradients."
        )


def ordinary(tree: Any) -> Any:
    """With copies of tensors made under inference mode, which take part in no derivative."""

    def copied(leaf: Any) -> Any:
        return leaf.clone() if isinstance(leaf, Tensor) and leaf.is_inference() else leaf

    return _pytree.tree_map(copied, tree)


def detached(tree: Any) -> Any:
    """The same values, without their graphs."""
    return _pytree.tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, tree)


@contextmanager
def unmoved(module: nn.Module) -> Iterator[None]:
    """Gives buffers and the generators of random numbers back as they were."""
    buffers = [
        (part, name, buffer, buffer.clone())
        for part in module.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    devices = {p.device for p in module.parameters() if p.device.type not in ("cpu", "meta")}
    kinds = {device.type for device in devices}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([], enabled=True))
        for kind in kinds:
            indices = [device.index or 0 for device in devices if device.type == kind]
            stack.enter_context(torch.random.fork_rng(indices, device_type=kind))
        stack.enter_context(random_states_kept())
        try:
            yield
        finally:
            with torch.no_grad():
                for part, name, buffer, values in buffers:
                    part._buffers[name] = buffer
                    if not torch.equal(buffer, values):
                        buffer.copy_(values)
