"""Hugging Face's trainer on a linearised module."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

from relin._common.extra import needs_extra
from relin.torch._following import Following
from relin.torch._linearised import Linearised

with needs_extra("torch.TrainerCallback", "transformers"):
    from transformers import TrainerCallback as Base

FILE = "anchor.safetensors"


class TrainerCallback(Base):
    """Re-linearises the `Linearised` model of a `Trainer` by its schedule, which counts the optimiser's steps.

    Adds `feature_updates` and `linearisation_error`, of the last batch after its step, to what the trainer logs (its
    `log_history`, and the trackers whose callbacks come after this one). Each of its checkpoints holds the anchor,
    `anchor.safetensors`, so that `train(resume_from_checkpoint=…)` goes on within a window.

    **Arguments:**

    - `resume_from`: the folder of the checkpoint that training goes on from, where it is no longer in the trainer's
      `output_dir`.

    **Raises:** `ValueError` where training begins unless there is one such module, trained by one optimiser; for tied
    weights, which the trainer cannot save of a wrapped model; and `FileNotFoundError` for a checkpoint without anchor.
    """

    def __init__(self, resume_from: str | Path | None = None):
        self.resume_from = resume_from
        self._following: Following | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any):
        self._following = Following(model)
        if str(getattr(args.save_strategy, "value", args.save_strategy)) != "no":
            _check_saved(self._following.model)
        if state.global_step:
            self._load(Path(self.resume_from or Path(args.output_dir) / f"checkpoint-{state.global_step}"))
        self._following.begin([getattr(optimizer, "optimizer", optimizer)])

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any):
        if self._following is not None:
            self._following.end()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any):
        if self._following is None or logs is None or "loss" not in logs:
            return
        measured = self._following.measured()
        logs.update(measured)
        if state.log_history:
            state.log_history[-1].update(measured)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any):
        if self._following is None or not args.should_save:
            return
        kept = self._following.model.anchor_state_dict()
        anchor = kept.pop("anchor")
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        save_file(anchor or {}, folder / FILE, metadata={"state": json.dumps(kept | {"anchored": anchor is not None})})

    def _load(self, folder: Path) -> None:
        assert self._following is not None
        if not (folder / FILE).exists():
            raise FileNotFoundError(
                f"A checkpoint of a linearised model must have its anchor, got none at {folder / FILE}; pass "
                "TrainerCallback(resume_from=...) the checkpoint's folder."
            )
        with safe_open(folder / FILE, "pt") as file:
            kept = json.loads(file.metadata()["state"])
            anchor = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        anchored = kept.pop("anchored")
        self._following.model.load_anchor_state_dict(kept | {"anchor": anchor if anchored else None})


def _check_saved(model: Linearised) -> None:
    places = [tensor.data_ptr() for tensor in model.state_dict().values()]
    if len(set(places)) < len(places):
        raise ValueError(
            "Trainer saves a wrapped model without tied weights only, got some that are tied; pass "
            'save_strategy="no" and save model.merged(), or untie them by the model\'s configuration.'
        )
