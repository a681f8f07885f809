"""Batches that come from Python go on where a checkpoint left them, or are refused."""

import grain
import numpy as np
import pytest

from core.checkpoint_runs import Loader, X, Y, agrees, bits, of_batches, train


class Source:
    """Examples as Grain takes them, which knows a source again by its `repr`."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return np.asarray(X[index]), np.asarray(Y[index])

    def __repr__(self):
        return "examples of the test"


def of_grain_loader():
    sampler = grain.samplers.IndexSampler(len(X), shuffle=True, seed=3, num_epochs=None)
    return grain.DataLoader(data_source=Source(), sampler=sampler, operations=[grain.transforms.Batch(8)])


def of_grain_dataset():
    return grain.MapDataset.source(Source()).shuffle(seed=3).repeat().batch(8).to_iter_dataset()


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [of_batches, lambda: iter(of_batches() * 3), Loader, of_grain_loader, of_grain_dataset],
    ids=["list", "generator", "state_dict", "grain loader", "grain dataset"],
)
@pytest.mark.parametrize("schedule", [1, 3])
def test_of_an_iterable(tmp_path, data, schedule):
    agrees(tmp_path, data=data, schedule=schedule, at=(2, 6), drive="auto")


def test_a_generator_that_ends_too_soon_is_refused(tmp_path):
    train(folder=tmp_path, data=iter(of_batches() * 3))
    (tmp_path / "step-12.json").unlink()
    with pytest.raises(ValueError, match="ended after 4 batches, and the run was at step 10"):
        train(folder=tmp_path, data=iter(of_batches()))


def test_other_batches_from_python_are_refused(tmp_path):
    train(folder=tmp_path, data=of_batches())
    for path in tmp_path.glob("step-12.*"):
        path.unlink()
    with pytest.raises(ValueError, match="another batch for step 9 than it gave when the run was begun"):
        train(folder=tmp_path, data=[(x, 1 - y) for x, y in of_batches()])


@pytest.mark.parametrize("schedule", [1, 3])
@pytest.mark.parametrize("data", [of_batches, Loader])
def test_an_error_of_the_batches_keeps_every_step_before_it(tmp_path, schedule, data):
    def failing(seen=()):
        for n, batch in enumerate(of_batches() * 3):
            if n == 7:
                raise OSError("the disk is gone")
            yield batch

    class Failing(Loader):
        def __iter__(self):
            for batch in super().__iter__():
                if (self.epoch, self.place) == (1, 4):
                    raise OSError("the disk is gone")
                yield batch

    broken = Failing() if data is Loader else failing()
    with pytest.raises(OSError, match="gone") as caught:
        train(folder=tmp_path, data=broken, schedule=schedule, every=1000, record_every=None)
    assert "after 6 steps" in str(caught.value.__notes__) or "after 7 steps" in str(caught.value.__notes__)
    seen = []
    how = {"schedule": schedule, "every": 1000, "record_every": None}
    again = train(folder=tmp_path, data=data(), progress=lambda done, total: seen.append(done), **how)
    assert seen[0] >= (0 if data is Loader else 6)  # a loader's position is asked for where a piece ends
    assert bits(again) == bits(train(data=data(), schedule=schedule, record_every=None))


def test_a_position_that_cannot_be_kept_is_refused_at_once(tmp_path):
    class Opaque(Loader):
        def state_dict(self):
            return {"lock": object()}

    with pytest.raises(TypeError, match="holds object, which a checkpoint cannot keep"):
        train(folder=tmp_path, data=Opaque())
    assert not list(tmp_path.iterdir())
