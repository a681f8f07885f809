"""MNIST and Fashion-MNIST: IDX files, written here and the real ones."""

import gzip
import struct

import numpy as np
import pytest
from dataset_writers import IDX_TEST, IDX_TRAIN, idx_images, idx_labels, normalised, random_images, write_idx

from relin.datasets import DatasetError, load

FASHION = "/usr/share/datasets/fashion-mnist"
TRAIN_IMAGES, TRAIN_LABELS = IDX_TRAIN
TEST_IMAGES, TEST_LABELS = IDX_TEST


@pytest.fixture
def files(tmp_path):
    train, test = random_images(12, (28, 28, 1), 10, 0), random_images(5, (28, 28, 1), 10, 1)
    return write_idx(tmp_path / "data", train, test, compress=False), train, test


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("compress", [False, True])
def test_every_pixel_and_label(tmp_path, name, compress):
    train, test = random_images(12, (28, 28, 1), 10, 0), random_images(5, (28, 28, 1), 10, 1)
    dataset = load(name, data_dir=write_idx(tmp_path / "data", train, test, compress), download=False)
    # One image in six is held out, from the end.
    expected = ((train[0][:10], train[1][:10]), (train[0][10:], train[1][10:]), test)
    for part, (images, labels) in zip((dataset.train, dataset.validation, dataset.test), expected, strict=True):
        np.testing.assert_allclose(part.x, normalised(images, train[0][:10]), atol=3e-7)
        np.testing.assert_array_equal(part.y, labels)
        assert part.x.dtype == np.float32
        assert part.y.dtype == np.int32
    assert (dataset.name, dataset.num_classes, dataset.input_shape) == (name, 10, (28, 28, 1))
    assert "last 2 of the 12 training images in the files (the official training set has 60000)" in dataset.split


@pytest.mark.slow
@pytest.mark.fashion_mnist
def test_real_fashion_mnist():
    dataset = load("fashion-mnist", data_dir=FASHION, download=False)
    with gzip.open(f"{FASHION}/{TRAIN_IMAGES}.gz") as file:
        assert struct.unpack(">IIII", file.read(16)) == (2051, 60000, 28, 28)
        pixels = np.array(memoryview(file.read())).reshape(60000, 28, 28)
    with gzip.open(f"{FASHION}/{TRAIN_LABELS}.gz") as file:
        labels = list(file.read()[8:])
    mean = pixels[:50000].mean() / 255
    std = pixels[:50000].std() / 255
    for position in (0, 1, 49_999):
        expected = (pixels[position] / 255 - mean) / std
        np.testing.assert_allclose(dataset.train.x[position, :, :, 0], expected, atol=1e-6)
    np.testing.assert_allclose(dataset.validation.x[-1, :, :, 0], (pixels[-1] / 255 - mean) / std, atol=1e-6)
    np.testing.assert_array_equal(np.concatenate([dataset.train.y, dataset.validation.y]), labels)
    # Fashion-MNIST is balanced, and its test set begins with these classes.
    np.testing.assert_array_equal(np.bincount(dataset.test.y), np.full(10, 1000))
    assert dataset.test.y[:5].tolist() == [9, 2, 1, 1, 6]
    assert f"m = {mean:.6g} and s = {std:.6g}" in dataset.normalisation
    assert dataset.split.startswith("The last 10000 of the 60000 training images in the files validate")
    assert abs(dataset.train.x.mean(dtype=np.float64)) < 1e-6
    assert abs(dataset.train.x.std(dtype=np.float64) - 1) < 1e-6


@pytest.mark.fashion_mnist
def test_fashion_mnist_is_not_taken_for_mnist():
    with pytest.raises(DatasetError, match=r"fashion-mnist holds the files of fashion-mnist .* load 'fashion-mnist'"):
        load("mnist", data_dir=FASHION, download=False)


def test_a_subfolder_with_its_name_wins_over_loose_files(tmp_path, files):
    folder, _, _ = files
    other, test = random_images(6, (28, 28, 1), 10, 7), random_images(2, (28, 28, 1), 10, 8)
    write_idx(folder / "fashion-mnist", other, test)
    assert len(load("mnist", data_dir=folder).train.y) == 10
    np.testing.assert_array_equal(load("fashion-mnist", data_dir=folder).train.y, other[1][:5])


def _refused(folder, match):
    with pytest.raises(DatasetError, match=match) as caught:
        load("mnist", data_dir=folder, download=False)
    assert "\n" not in str(caught.value)


def test_truncated_payload(files):
    folder, (images, _), _ = files
    path = folder / TRAIN_IMAGES
    path.write_bytes(idx_images(images)[:-3])
    _refused(folder, f"{path} is truncated: .* 12×28×28 = 9408 bytes of images but 9405 follow; replace it")


def test_payload_too_long(files):
    folder, _, (_, labels) = files
    (folder / TEST_LABELS).write_bytes(idx_labels(labels) + b"\0")
    _refused(folder, f"{TEST_LABELS} is too long: .* 5 = 5 bytes of labels but more follow")


def test_truncated_header(files):
    folder, (images, _), _ = files
    (folder / TRAIN_IMAGES).write_bytes(idx_images(images)[:10])
    _refused(folder, f"{TRAIN_IMAGES} is truncated: it ends after 10 bytes, inside its header of 16")


def test_empty_file(files):
    folder, _, _ = files
    (folder / TRAIN_LABELS).write_bytes(b"")
    _refused(folder, f"{TRAIN_LABELS} should be an IDX file of labels .* but is only 0 bytes long")


def test_no_examples(files):
    folder, _, _ = files
    (folder / TEST_IMAGES).write_bytes(struct.pack(">IIII", 2051, 0, 28, 28))
    _refused(folder, f"{TEST_IMAGES} holds no images at all")


def test_not_an_idx_file(files):
    folder, _, _ = files
    (folder / TRAIN_IMAGES).write_bytes(b"<!DOCTYPE html>")
    _refused(folder, f"{TRAIN_IMAGES} should be an IDX file of images .* begins with the number 1008813135")


def test_images_under_the_name_of_labels(files):
    folder, (images, labels), _ = files
    (folder / TRAIN_LABELS).write_bytes(idx_images(images))
    _refused(folder, f"{TRAIN_LABELS} should be .* labels .* holds images .* official names")
    (folder / TRAIN_LABELS).write_bytes(idx_labels(labels))
    (folder / TRAIN_IMAGES).write_bytes(idx_labels(labels))
    _refused(folder, f"{TRAIN_IMAGES} should be .* images .* holds labels .* official names")


@pytest.mark.parametrize("damage", ["cut", "flip", "only the header"])
def test_broken_gzip(files, damage):
    folder, (images, _), _ = files
    (folder / TRAIN_IMAGES).unlink()
    packed = bytearray(gzip.compress(idx_images(images)))
    if damage == "flip":
        packed[len(packed) // 2] ^= 255
    packed = packed[:-20] if damage == "cut" else packed[:2] if damage == "only the header" else packed
    (folder / f"{TRAIN_IMAGES}.gz").write_bytes(packed)
    _refused(folder, f"{TRAIN_IMAGES}.gz is a truncated or damaged gzip file .*; replace it")


def test_label_out_of_range(files):
    folder, (_, labels), _ = files
    labels[3] = 10
    (folder / TRAIN_LABELS).write_bytes(idx_labels(labels))
    _refused(folder, f"{TRAIN_LABELS} has label 10 at example 3 where labels go from 0 to 9")


def test_counts_that_differ(files):
    folder, (_, labels), _ = files
    (folder / TRAIN_LABELS).write_bytes(idx_labels(labels[:-1]))
    _refused(folder, f"{TRAIN_IMAGES} holds 12 images but .*{TRAIN_LABELS} holds 11 labels")


def test_images_of_another_size(files):
    folder, _, (_, labels) = files
    (folder / TEST_IMAGES).write_bytes(idx_images(np.zeros((len(labels), 32, 30, 1), np.uint8)))
    _refused(folder, f"{TEST_IMAGES} holds images of 32×30 pixels where 28×28 are expected")


def test_images_without_content(files):
    folder, (images, _), _ = files
    (folder / TRAIN_IMAGES).write_bytes(idx_images(np.zeros_like(images)))
    _refused(folder, "mnist cannot be normalised because channel 0 .* has the same value everywhere")


def test_too_few_to_hold_any_out(tmp_path):
    train = random_images(5, (28, 28, 1), 10, 0)
    _refused(write_idx(tmp_path / "few", train, train), "holds 5 training images of mnist, too few")
