"""The names, the order of search, `limit`, `status`, and what is refused before a file is read."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dataset_writers import CIFAR10_BINARY, binary, random_images, write_files, write_idx

import relin.datasets
from relin._common.files import open_file
from relin.datasets import DatasetError, _files, load, names, status


def write_mnist(folder, num_train, compress=False):
    train, test = random_images(num_train, (28, 28, 1), 10, 0), random_images(3, (28, 28, 1), 10, 1)
    return write_idx(folder, train, test, compress)


def test_names():
    assert names() == ("digits", "mnist1d", "diabetes", "mnist", "fashion-mnist", "cifar10", "cifar100")


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("FashionMNIST", "fashion-mnist"),
        ("fashion_mnist", "fashion-mnist"),
        ("CIFAR-10", "cifar10"),
        ("cifar-100", "cifar100"),
        ("mnist-1d", "mnist1d"),
        ("digit", "digits"),
    ],
)
def test_unknown_name_suggests_the_closest(name, close):
    known = "digits, mnist1d, diabetes, mnist, fashion-mnist, cifar10, cifar100"
    with pytest.raises(DatasetError, match=f"'{name}' is not a known dataset, .* {known}; did you mean '{close}'"):
        load(name)


def test_unknown_name_without_a_close_one():
    with pytest.raises(DatasetError, match=r"'imagenet' is not .* cifar100; choose one of these"):
        load("imagenet")


def test_search_order(tmp_path, own_cache, monkeypatch):
    """The given folder, then the cache, then the operating system's; told apart by their sizes."""
    import dataclasses

    system = write_mnist(tmp_path / "system", 30)
    sources = relin.datasets._sources.SOURCES
    monkeypatch.setitem(
        sources, "fashion-mnist", dataclasses.replace(sources["fashion-mnist"], system_folders=(str(system),))
    )
    empty = tmp_path / "empty"
    empty.mkdir()

    def count(data_dir):
        return len(load("fashion-mnist", data_dir=data_dir, download=False).train.y)

    assert count(None) == 25
    assert count(empty) == 25
    write_mnist(own_cache / "fashion-mnist", 24)
    assert count(None) == 20
    assert count(empty) == 20
    given = write_mnist(tmp_path / "given" / "fashion-mnist", 18).parent
    assert count(given) == 15
    assert count(given / "fashion-mnist") == 15


def test_torchvisions_folders(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw", 12)
    write_mnist(tmp_path / "FashionMNIST" / "raw", 24)
    assert len(load("mnist", data_dir=tmp_path, download=False).train.y) == 10
    assert len(load("fashion-mnist", data_dir=tmp_path, download=False).train.y) == 20


def test_the_cache_folder_is_the_users_by_default(monkeypatch):
    import platformdirs

    from relin.datasets._locate import cache_folder

    monkeypatch.delenv("RELIN_CACHE")
    assert cache_folder() == Path(platformdirs.user_cache_dir("relin")) / "datasets"


def test_missing_without_download(tmp_path, own_cache):
    with pytest.raises(DatasetError) as caught:
        load("fashion-mnist", data_dir=tmp_path, download=False)
    assert str(caught.value) == (
        "fashion-mnist is missing: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, "
        f"t10k-labels-idx1-ubyte (each plain or .gz) not found in {tmp_path}, {own_cache / 'fashion-mnist'}, and "
        f"download=False forbids downloading them; put the official files into {own_cache / 'fashion-mnist'}, or "
        "pass the folder that holds them as data_dir, or install Debian's package dataset-fashion-mnist."
    )
    with pytest.raises(DatasetError, match=r"cifar-100-python.tar.gz \(or its folder cifar-100-python\) not found"):
        load("cifar100", download=False)


def test_data_dir_that_is_none(tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match=f"data_dir {tmp_path / 'nowhere'} does not exist; pass the folder"):
        load("mnist", data_dir=tmp_path / "nowhere")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(DatasetError, match=f"data_dir {file} is not a folder; pass the folder"):
        load("digits", data_dir=os.fspath(file))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DatasetError, match=f"data_dir {tmp_path} cannot be read with your permissions"):
        status(tmp_path)


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    folder = write_mnist(tmp_path / "data", 12)

    def refusing(path):
        if path.name.startswith("t10k-labels"):
            raise PermissionError(13, "Permission denied")
        return open_file(path)

    monkeypatch.setattr(_files, "open_file", refusing)
    with pytest.raises(DatasetError, match=r"t10k-labels-idx1-ubyte cannot be read \(Permission denied\); make it"):
        load("mnist", data_dir=folder)


def test_limit(tmp_path):
    folder = write_mnist(tmp_path / "data", 12)
    whole, limited = load("mnist", data_dir=folder), load("mnist", data_dir=folder, limit=np.int64(4))
    np.testing.assert_array_equal(limited.train.x, whole.train.x[:4])
    np.testing.assert_array_equal(limited.train.y, whole.train.y[:4])
    np.testing.assert_array_equal(limited.validation.x, whole.validation.x)
    np.testing.assert_array_equal(limited.test.x, whole.test.x)
    assert limited.normalisation == whole.normalisation
    assert limited.split.endswith("(of the training split only the first 4 are kept).")
    assert len(load("mnist", data_dir=folder, limit=10).train.y) == 10


@pytest.mark.parametrize("limit", [0, -1, 1201])
def test_limit_out_of_range(limit):
    with pytest.raises(DatasetError, match=f"limit must be from 1 to 1200, .* of digits, got {limit}; choose"):
        load("digits", limit=limit)


@pytest.mark.parametrize("limit", [1.5, True, "3"])
def test_limit_of_another_type(limit):
    with pytest.raises(TypeError, match=f"limit must be an integer, got {limit!r}; pass a number"):
        load("digits", limit=limit)


def test_status(tmp_path):
    folder = write_mnist(tmp_path / "mnist", 12)
    parts = [random_images(2, (32, 32, 3), 10, seed) for seed in range(6)]
    files = {name: binary(*part) for name, part in zip(CIFAR10_BINARY, parts, strict=True)}
    del files["test_batch.bin"]
    write_files(tmp_path / "cifar-10-batches-bin", files)
    found = {entry.name: entry for entry in status(tmp_path)}
    assert tuple(found) == names()
    assert (found["digits"].available, found["digits"].where) == (True, "scikit-learn")
    assert (found["mnist1d"].available, found["mnist1d"].where) == (True, "mnist1d package")
    mnist = found["mnist"]
    assert (mnist.available, mnist.where) == (True, str(folder))
    assert mnist.size == (12 + 3) * 28 * 28 + 12 + 3 + 2 * 16 + 2 * 8
    assert (mnist.num_examples, mnist.input_shape, mnist.num_classes) == (70000, (28, 28, 1), 10)
    # A part of the files is not the dataset, and what is missing is named.
    assert not found["cifar10"].available
    assert "test_batch.bin is missing" in found["cifar10"].how_to_get
    assert (found["cifar100"].available, found["cifar100"].where, found["cifar100"].size) == (False, None, None)
    assert "downloads cifar-100-python.tar.gz from https://www.cs.toronto.edu" in found["cifar100"].how_to_get
    assert found["cifar100"].num_classes == 100
    assert "Debian's package dataset-fashion-mnist" in found["fashion-mnist"].how_to_get


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_status_tells_the_shapes_that_load_returns(tmp_path, name):
    write_mnist(tmp_path, 12)
    entry = next(entry for entry in status(tmp_path) if entry.name == name)
    dataset = load(name, data_dir=tmp_path)
    assert entry.input_shape == dataset.train.x.shape[1:] == dataset.input_shape
    assert entry.num_classes == dataset.num_classes


def run_apart(script):
    """Run a script in a fresh process in which `relin` holds nothing but its subpackages."""
    folder = os.fspath(Path(relin.datasets.__file__).parents[1])
    preamble = (
        "import sys, types; package = types.ModuleType('relin'); package.__path__ = [sys.argv[1]];"
        "sys.modules['relin'] = package; import relin.datasets as d;"
    )
    subprocess.run([sys.executable, "-c", preamble + script, folder], check=True)


@pytest.mark.fashion_mnist
def test_status_finds_the_systems_fashion_mnist():
    # Apart, without the fixture that hides the operating system's folder.
    run_apart(
        "found = {entry.name: entry for entry in d.status()}['fashion-mnist'];"
        "assert found.available and found.where == '/usr/share/datasets/fashion-mnist', found"
    )


def test_import_is_cheap():
    """Importing the datasets must not import what only some of them need."""
    run_apart(
        "heavy = {'sklearn', 'scipy', 'mnist1d', 'pooch', 'requests', 'matplotlib', 'jax'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
