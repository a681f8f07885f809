"""An optimiser that counts the steps of a linearised module."""

from typing import Any

import torch
from torch import nn


def trains(optimizer: torch.optim.Optimizer, module: nn.Module) -> bool:
    """Whether an optimiser has some of a module's parameters."""
    own = {id(parameter) for parameter in module.parameters()}
    return any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"])


class Attached:
    """An optimiser that counts a `Linearised` module's steps."""

    def __init__(self, model: Any, optimizer: torch.optim.Optimizer):
        self._model = model
        self._handle = optimizer.register_step_post_hook(lambda *_: model._advance())

    def remove(self) -> None:
        """Ends it."""
        self._handle.remove()
        self._model._attached = None
