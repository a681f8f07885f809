"""The digits of scikit-learn and the generated MNIST-1D."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from relin.datasets import DatasetError, _generated, load


def test_digits_split_and_values():
    dataset = load("digits")
    assert [len(part.y) for part in (dataset.train, dataset.validation, dataset.test)] == [1200, 297, 300]
    assert dataset.input_shape == (8, 8, 1)
    pixels, labels = load_digits(return_X_y=True)
    x = np.concatenate([dataset.train.x, dataset.validation.x, dataset.test.x])[..., 0].astype(np.float64)
    y = np.concatenate([dataset.train.y, dataset.validation.y, dataset.test.y])
    mean, std = (float(part.split()[0].rstrip(",")) for part in dataset.normalisation.split(" = ")[1:])
    raw = np.rint((x * std + mean) * 16).reshape(-1, 64)
    np.testing.assert_allclose(raw, (x.reshape(-1, 64) * std + mean) * 16, atol=1e-4)
    # Every digit is in exactly one part, with its own label.
    ours = sorted([*row, label] for row, label in zip(raw.tolist(), y.tolist(), strict=True))
    theirs = sorted([*row, label] for row, label in zip(pixels.tolist(), labels.tolist(), strict=True))
    assert ours == theirs
    train = raw[:1200] / 16
    assert abs(train.mean() - mean) < 1e-6
    assert abs(train.std() - std) < 1e-6


def test_digits_are_stratified_in_every_prefix():
    y = np.concatenate([part.y for part in (lambda d: (d.train, d.validation, d.test))(load("digits"))])
    sizes = np.bincount(y)
    for length in (10, 50, 333, 1200, 1497):
        expected = sizes * length / len(y)
        assert np.abs(np.bincount(y[:length], minlength=10) - expected).max() <= 1.5


def test_digits_order_is_the_documented_one():
    _, labels = load_digits(return_X_y=True)
    shuffled = np.random.RandomState(0).permutation(1797)
    ranked = []
    for label in range(10):
        members = [i for i in shuffled if labels[i] == label]
        ranked += [((rank + 0.5) / len(members), i) for rank, i in enumerate(members)]
    order = [i for _, i in sorted(ranked)]
    np.testing.assert_array_equal(load("digits").train.y, labels[order[:1200]])
    np.testing.assert_array_equal(load("digits").test.y, labels[order[1497:]])


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """MNIST-1D generated once, with its cache file, and whether it moved the global random states."""
    folder = tmp_path_factory.mktemp("mnist1d")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELIN_CACHE", os.fspath(folder))
        random.seed(5)
        np.random.seed(6)
        expected = random.random(), np.random.random()
        random.seed(5)
        np.random.seed(6)
        dataset = load("mnist1d")
        return dataset, _generated.mnist1d_cache(), expected == (random.random(), np.random.random())


@pytest.fixture
def cached(generated, own_cache):
    """The cache file of `generated`, copied into the cache of this test."""
    path = _generated.mnist1d_cache()
    path.parent.mkdir(parents=True)
    shutil.copy(generated[1], path)
    return path


def test_mnist1d_is_the_published_generators(generated):
    from mnist1d.data import get_dataset_args, make_dataset

    dataset, _, states_kept = generated
    assert states_kept
    state, numpy_state = random.getstate(), np.random.get_state()
    data = make_dataset(get_dataset_args())
    random.setstate(state)
    np.random.set_state(numpy_state)
    train = data["x"][:3500]
    x = (np.concatenate([data["x"], data["x_test"]]) - train.mean()) / train.std()
    y = np.concatenate([data["y"], data["y_test"]])
    for part, where in ((dataset.train, slice(0, 3500)), (dataset.validation, slice(3500, 4000))):
        np.testing.assert_allclose(part.x[..., 0], x[where], atol=1e-6)
        np.testing.assert_array_equal(part.y, y[where])
    np.testing.assert_allclose(dataset.test.x[..., 0], x[4000:], atol=1e-6)
    np.testing.assert_array_equal(dataset.test.y, y[4000:])
    assert dataset.input_shape == (40, 1)
    assert dataset.train.x.dtype == np.float32
    assert dataset.train.y.dtype == np.int32


def test_mnist1d_is_generated_once(generated, cached, monkeypatch):
    monkeypatch.setattr(_generated, "_generate_mnist1d", lambda: pytest.fail("generated again"))
    again = load("mnist1d")
    np.testing.assert_array_equal(again.train.x, generated[0].train.x)
    np.testing.assert_array_equal(again.test.y, generated[0].test.y)


def test_a_changed_mnist1d_cache_is_refused(cached):
    with np.load(cached) as stored:
        arrays = dict(stored)
    arrays["y_test"] = arrays["y_test"][::-1]
    np.savez(cached, **arrays)
    with pytest.raises(DatasetError, match=f"{cached} has arrays of SHA-256 checksum .* delete it"):
        load("mnist1d")


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_mnist1d_cache_is_refused(cached, damage):
    content = bytearray(cached.read_bytes())
    content[len(content) // 2] ^= 255
    cached.write_bytes({"cut": content[: len(content) // 2], "flip": content, "empty": b""}.get(damage, b"PK"))
    if damage == "other":
        with cached.open("wb") as file:
            np.savez(file, x=np.zeros(3))
    with pytest.raises(DatasetError, match=f"{cached} is not a readable npz file of MNIST-1D .* delete it") as caught:
        load("mnist1d")
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_does_no_harm(generated, tmp_path, monkeypatch):
    x, y, x_test, y_test = _generated._read_cache(generated[1])
    monkeypatch.setattr(_generated, "_generate_mnist1d", lambda: [x, y, x_test, y_test])
    (tmp_path / "cache").write_text("a file where the cache folder would be")
    np.testing.assert_array_equal(load("mnist1d").test.x, generated[0].test.x)


@pytest.mark.slow
def test_the_generator_leaves_matplotlibs_backend_alone():
    # Without a preference matplotlib has yet to choose; the generator makes few signals, to save time.
    script = """if True:
        import sys, types, matplotlib
        package = types.ModuleType("relin")
        package.__path__ = [sys.argv[1]]
        sys.modules["relin"] = package
        from relin.datasets import _generated
        before = matplotlib.get_backend(auto_select=False)
        assert "mnist1d" not in sys.modules
        import mnist1d.data
        defaults = mnist1d.data.get_dataset_args(as_dict=True) | {"num_samples": 20}
        mnist1d.data.get_dataset_args = lambda: mnist1d.data.ObjectView(defaults)
        assert len(_generated._generate_mnist1d()[0]) == 16
        assert matplotlib.get_backend(auto_select=False) == before, before
    """
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    folder = os.fspath(Path(_generated.__file__).parents[1])
    subprocess.run([sys.executable, "-c", script, folder], check=True, env=environment)
