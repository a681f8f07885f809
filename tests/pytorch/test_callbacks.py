"""Lightning's and Hugging Face's trainers on linearised modules."""

import json
import logging

import pytest
import torch
from torch import nn

import relin as il
import relin.torch
from relin.torch import Linearised

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of trainers, which warn of many things
]
GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(48, 8, generator=GENERATOR), torch.randint(0, 3, (48,), generator=GENERATOR)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3))


def by_hand(model, steps=12):
    """What both trainers do in one epoch and a half: batches of 8 in order, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    if isinstance(model, Linearised):
        model.attach(optimizer)
    for step in range(steps):
        batch = slice(8 * (step % 6), 8 * (step % 6) + 8)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X[batch]), Y[batch]).backward()
        optimizer.step()
    return model


def assert_equal(mine, other):
    for (name, tensor), theirs in zip(mine.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(tensor, theirs), name


def lightning_run(model, folder, steps=12, checkpoint=None, callback=True):
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import ModelCheckpoint

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    seen = []

    class Logger(pl.loggers.logger.DummyLogger):
        def log_metrics(self, metrics, step=None):
            seen.append((step, metrics))

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-2, weight_decay=0.1)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)
    callbacks = [ModelCheckpoint(folder, save_last=True, every_n_train_steps=6)]
    callbacks += [relin.torch.LightningCallback()] if callback else []
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=steps, callbacks=callbacks, logger=Logger(), log_every_n_steps=3, **quiet
    )
    trainer.fit(Module(), data, ckpt_path=checkpoint)
    return model, seen


def test_lightning_trains_as_a_loop_and_logs(tmp_path):
    model, seen = lightning_run(Linearised(network(), il.Every(5)), tmp_path)
    assert_equal(model, by_hand(Linearised(network(), il.Every(5))))
    assert model.feature_updates == 2
    logged = {step: metrics for step, metrics in seen if "linearisation_error" in metrics}
    assert len(logged) == 4
    assert [metrics["feature_updates"] for metrics in logged.values()] == [0, 1, 1, 2]
    assert all(metrics["linearisation_error"] > 0 for metrics in logged.values())
    model.attach(torch.optim.SGD(model.parameters(), 0.1))  # the trainer's is no longer there


def test_lightnings_own_run_is_that_of_every_step(tmp_path):
    model, _ = lightning_run(Linearised(network(), il.Every(1)), tmp_path)
    own, _ = lightning_run(network(), tmp_path, callback=False)
    assert_equal(model, own)


def test_lightning_goes_on_within_a_window(tmp_path):
    lightning_run(Linearised(network(), il.Every(5)), tmp_path, steps=6)
    (file,) = tmp_path.glob("*step=6.ckpt")
    model, _ = lightning_run(Linearised(network(), il.Every(5)), tmp_path, checkpoint=file)
    assert_equal(model, by_hand(Linearised(network(), il.Every(5))))
    assert model.feature_updates == 2


class Classifier(nn.Module):
    """A network that computes its loss as Hugging Face's do."""

    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x, labels=None):
        logits = self.body(x)
        return {"loss": None if labels is None else nn.functional.cross_entropy(logits, labels), "logits": logits}


@pytest.fixture(autouse=True)
def no_datasets(monkeypatch):
    """Transformers takes the folder of tests of that name for the library `datasets`."""
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)


def hugging_face_run(model, folder, steps=12, resume=None, callback=None, **options):
    from transformers import Trainer, TrainingArguments

    class InOrder(Trainer):
        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    arguments = TrainingArguments(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        weight_decay=0.1,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        logging_steps=3,
        use_cpu=True,
        optim="adamw_torch",
        report_to=[],
        disable_tqdm=True,
        **{"save_steps": 7, **options},
    )
    rows = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    trainer = InOrder(model, arguments, train_dataset=rows, callbacks=[callback] if callback else [])
    trainer.train(resume_from_checkpoint=resume)
    return model, trainer.state.log_history


def test_hugging_face_trains_as_a_loop_and_logs(tmp_path):
    model, own = Linearised(Classifier(), il.Every(5)), Linearised(Classifier(), il.Every(5))
    model, history = hugging_face_run(model, tmp_path, callback=relin.torch.TrainerCallback())
    own, _ = hugging_face_loop(own)
    assert_equal(model, own)
    assert model.feature_updates == 2
    logged = [row for row in history if "linearisation_error" in row]
    assert [row["feature_updates"] for row in logged] == [0, 1, 1, 2]
    assert all(row["linearisation_error"] > 0 for row in logged)


def hugging_face_loop(model, steps=12):
    """The trainer's decay is of all parameters but biases."""
    decays, others = [], []
    for name, parameter in model.named_parameters():
        (others if "bias" in name else decays).append(parameter)
    groups = [{"params": decays, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, 1e-2, eps=1e-8)
    for step in range(steps):
        batch = slice(8 * (step % 6), 8 * (step % 6) + 8)
        optimizer.zero_grad()
        model(x=X[batch], labels=Y[batch])["loss"].backward()
        optimizer.step()
        model.step()
    return model, None


def test_hugging_faces_own_run_is_that_of_every_step(tmp_path):
    model, _ = hugging_face_run(
        Linearised(Classifier(), il.Every(1)), tmp_path / "a", callback=relin.torch.TrainerCallback()
    )
    own, _ = hugging_face_run(Classifier(), tmp_path / "b")
    assert_equal(model, own)


def test_hugging_face_goes_on_within_a_window(tmp_path):
    whole, _ = hugging_face_run(Linearised(Classifier(), il.Every(5)), tmp_path, callback=relin.torch.TrainerCallback())
    folder = tmp_path / "checkpoint-7"
    assert json.loads((folder / "trainer_state.json").read_text())["log_history"][-1]["feature_updates"] == 1
    model, _ = hugging_face_run(
        Linearised(Classifier(), il.Every(5)), tmp_path, resume=str(folder), callback=relin.torch.TrainerCallback()
    )
    assert_equal(model, whole)
    assert model.feature_updates == 2
    (folder / "anchor.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="must have its anchor"):
        hugging_face_run(
            Linearised(Classifier(), il.Every(5)), tmp_path, resume=str(folder), callback=relin.torch.TrainerCallback()
        )


def test_what_a_callback_cannot_follow_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one linearised module, got 0"):
        hugging_face_run(Classifier(), tmp_path, callback=relin.torch.TrainerCallback())
    tied = Classifier()
    tied.body = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    tied.body[1].weight = tied.body[0].weight
    with pytest.raises(ValueError, match="without tied weights"):
        hugging_face_run(Linearised(tied, il.Every(2)), tmp_path, callback=relin.torch.TrainerCallback())
    model, _ = hugging_face_run(
        Linearised(tied, il.Every(2)), tmp_path, callback=relin.torch.TrainerCallback(), save_strategy="no"
    )
    assert model.feature_updates == 5
