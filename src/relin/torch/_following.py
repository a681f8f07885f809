"""What the callbacks of trainers share: a linearised module, the optimiser that counts its steps, its last call."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from relin.torch._attached import Attached, trains
from relin.torch._linearised import Linearised
from relin.torch._schedules import Batch, NothingComparedError


class Following:
    """The one linearised module in a model, while a trainer trains it.

    **Raises:** `ValueError` unless there is one.
    """

    def __init__(self, root: nn.Module):
        found = [part for part in root.modules() if isinstance(part, Linearised)]
        if len(found) != 1:
            raise ValueError(
                f"The model must have one linearised module, got {len(found)} in {type(root).__name__}; wrap the "
                "network with relin.torch.Linearised."
            )
        self.model = found[0]
        self._ends: list[Any] = []
        self._last: Batch | None = None

    def begin(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """Counts the steps of the optimiser that trains the module, and notes the inputs of its calls."""
        self.end()
        training = [optimizer for optimizer in optimizers if trains(optimizer, self.model)]
        if len(training) != 1:
            raise ValueError(
                f"One optimiser must train the linearised module, got {len(training)}; give it all of its parameters."
            )
        attached: Attached = self.model.attach(training[0])
        self._ends = [attached, self.model.register_forward_pre_hook(self._note, with_kwargs=True)]

    def end(self) -> None:
        """Ends both."""
        for handle in self._ends:
            handle.remove()
        self._ends = []

    def measured(self) -> dict[str, float]:
        """The feature updates so far, and the linearisation error on the last batch, after its step, if it has one."""
        values = {"feature_updates": float(self.model.feature_updates)}
        if self._last is not None:
            with suppress(NothingComparedError):
                values["linearisation_error"] = self.model.linearisation_error(*self._last.args, **self._last.kwargs)
        return values

    def _note(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            self._last = Batch(args, kwargs)
