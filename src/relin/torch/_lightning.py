"""Lightning's trainer on a linearised module."""

from typing import Any

from relin._common.extra import needs_extra
from relin.torch._following import Following

with needs_extra("torch.LightningCallback", "lightning"):
    from lightning.pytorch import Callback, LightningModule, Trainer


class LightningCallback(Callback):
    """Re-linearises the one `Linearised` of a `LightningModule` by its schedule, which counts the optimiser's steps.

    Logs `feature_updates` and `linearisation_error`, of the last batch after its step, every `log_every_n_steps` of the
    trainer. Lightning's checkpoints hold the anchor with the callback's state, so that a run goes on within a window.

    **Raises:** `ValueError` where training begins unless there is one such module, trained by one optimiser.
    """

    def __init__(self) -> None:
        self._following: Following | None = None

    def setup(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        self._following = Following(pl_module)

    def on_train_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        assert self._following is not None
        self._following.begin(trainer.optimizers)

    def on_train_batch_end(
        self, trainer: "Trainer", pl_module: "LightningModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._following is not None
        every = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if every and trainer.global_step % every == 0:
            pl_module.log_dict(self._following.measured())

    def on_train_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        if self._following is not None:
            self._following.end()

    def on_exception(self, trainer: "Trainer", pl_module: "LightningModule", exception: BaseException) -> None:
        if self._following is not None:
            self._following.end()

    def state_dict(self) -> dict[str, Any]:
        return {} if self._following is None else self._following.model.anchor_state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called after the module's parameters were loaded."""
        if self._following is not None and state_dict:
            self._following.model.load_anchor_state_dict(state_dict)
