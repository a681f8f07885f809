"""CIFAR-10 and CIFAR-100 in every official form, written here by hand."""

import os
import pickle
import shutil

import numpy as np
import pytest
from dataset_writers import (
    CIFAR10_BINARY,
    CIFAR10_PYTHON,
    binary,
    normalised,
    python2_pickle,
    random_images,
    table,
    tar_gz,
    write_files,
)

from relin.datasets import DatasetError, load

SHAPE = (32, 32, 3)


def cifar10_parts():
    """Images and labels of five training files of four images, and of the test file."""
    return [random_images(4, SHAPE, 10, seed) for seed in range(5)], random_images(3, SHAPE, 10, 9)


def cifar10_binary():
    train, test = cifar10_parts()
    return {name: binary(*part) for name, part in zip(CIFAR10_BINARY, [*train, test], strict=True)}


def cifar10_python(pack=python2_pickle):
    train, test = cifar10_parts()
    entries = (
        {b"batch_label": b"batch", b"labels": y.tolist(), b"data": table(x), b"filenames": b"a.png" * 90}
        for x, y in [*train, test]
    )
    return {name: pack(entry) for name, entry in zip(CIFAR10_PYTHON, entries, strict=True)}


def cifar100_parts():
    return random_images(20, SHAPE, 100, 0), random_images(4, SHAPE, 100, 1)


def python3_pickle(entry):
    """Bytes keys, protocol 2, written by this Python and this NumPy."""
    return pickle.dumps(entry, protocol=2)


def text_keys(entry):
    """The same with text as keys, as files that were read and written again may have."""
    return pickle.dumps({key.decode(): value for key, value in entry.items()}, protocol=2)


def check_cifar10(dataset):
    train, test = cifar10_parts()
    images, labels = (np.concatenate(part) for part in zip(*train, strict=True))
    expected = ((images[:18], labels[:18]), (images[18:], labels[18:]), test)
    for part, (x, y) in zip((dataset.train, dataset.validation, dataset.test), expected, strict=True):
        np.testing.assert_allclose(part.x, normalised(x, images[:18]), atol=3e-7)
        np.testing.assert_array_equal(part.y, y)
        assert part.x.dtype == np.float32
        assert part.y.dtype == np.int32
    assert (dataset.num_classes, dataset.input_shape) == (10, SHAPE)


@pytest.mark.parametrize("subfolder", [".", "cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"])
def test_binary_folder(tmp_path, subfolder):
    write_files(tmp_path / "data" / subfolder, cifar10_binary())
    check_cifar10(load("cifar10", data_dir=tmp_path / "data", download=False))


@pytest.mark.parametrize("pack", [python2_pickle, python3_pickle, text_keys])
def test_python_folder(tmp_path, pack):
    write_files(tmp_path / "cifar-10-batches-py", cifar10_python(pack))
    check_cifar10(load("cifar10", data_dir=tmp_path, download=False))


@pytest.mark.parametrize("layout", ["binary", "python"])
def test_archives(tmp_path, layout):
    if layout == "binary":
        tar_gz(tmp_path / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", cifar10_binary())
    else:
        tar_gz(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", cifar10_python())
    check_cifar10(load("cifar10", data_dir=tmp_path, download=False))


@pytest.mark.parametrize("layout", ["binary", "python", "archive"])
def test_cifar100_takes_the_fine_labels(tmp_path, layout):
    parts = dict(zip(("train", "test"), cifar100_parts(), strict=True))
    coarse = {name: y % 20 for name, (_, y) in parts.items()}
    if layout == "binary":
        files = {f"{name}.bin": binary(x, y, coarse[name]) for name, (x, y) in parts.items()}
        write_files(tmp_path / "cifar-100-binary", files)
    else:
        files = {
            name: python2_pickle(
                {b"coarse_labels": coarse[name].tolist(), b"fine_labels": y.tolist(), b"data": table(x)}
            )
            for name, (x, y) in parts.items()
        }
        if layout == "python":
            write_files(tmp_path / "cifar-100-python", files)
        else:
            tar_gz(tmp_path / "cifar-100-python.tar.gz", "cifar-100-python", files)
    dataset = load("cifar100", data_dir=tmp_path, download=False)
    (images, labels), (test_images, test_labels) = parts["train"], parts["test"]
    np.testing.assert_allclose(dataset.validation.x, normalised(images[18:], images[:18]), atol=3e-7)
    np.testing.assert_allclose(dataset.test.x, normalised(test_images, images[:18]), atol=3e-7)
    np.testing.assert_array_equal(dataset.train.y, labels[:18])
    np.testing.assert_array_equal(dataset.test.y, test_labels)
    assert dataset.num_classes == 100


def _refused(folder, match, name="cifar10"):
    with pytest.raises(DatasetError, match=match) as caught:
        load(name, data_dir=folder, download=False)
    assert "\n" not in str(caught.value)


def test_binary_of_another_size(tmp_path):
    files = cifar10_binary()
    files["data_batch_3.bin"] = files["data_batch_3.bin"][:-1]
    _refused(write_files(tmp_path / "data", files), "data_batch_3.bin holds 12291 bytes where a multiple of 3073")


def test_empty_binary(tmp_path):
    folder = write_files(tmp_path / "data", cifar10_binary() | {"test_batch.bin": b""})
    _refused(folder, "test_batch.bin holds 0 bytes")


def test_binary_label_out_of_range(tmp_path):
    files = cifar10_binary()
    images, labels = random_images(4, SHAPE, 10, 0)
    labels[2] = 11
    files["data_batch_1.bin"] = binary(images, labels)
    _refused(write_files(tmp_path / "data", files), "data_batch_1.bin has label 11 at example 2 .* 0 to 9")


def test_coarse_label_out_of_range(tmp_path):
    images, labels = random_images(10, SHAPE, 100, 0)
    files = {"train.bin": binary(images, labels, labels % 20), "test.bin": binary(images, labels, labels % 20 + 20)}
    folder = write_files(tmp_path / "data", files)
    _refused(folder, "test.bin has coarse label .* where coarse labels go from 0 to 19", "cifar100")


def test_a_missing_file_is_named(tmp_path):
    files = cifar10_binary()
    del files["data_batch_4.bin"]
    folder = write_files(tmp_path / "cifar-10-batches-bin", files)
    _refused(tmp_path, f"{folder} holds only a part of cifar10: data_batch_4.bin is missing beside data_batch_1")


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_archive(tmp_path, kept):
    path = tar_gz(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", cifar10_python())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    _refused(tmp_path, f"{path} is a truncated or damaged archive .*; replace it")


def test_archive_with_a_flipped_bit_in_its_checksum(tmp_path):
    path = tar_gz(tmp_path / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", cifar10_binary())
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    _refused(tmp_path, f"{path} is a truncated or damaged archive .*CRC")


def test_archive_that_is_none(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(b"<html>not found</html>")
    _refused(tmp_path, f"{path} is a truncated or damaged archive .*Not a gzipped file")


def test_archive_without_a_file(tmp_path):
    files = cifar10_python()
    del files["test_batch"]
    path = tar_gz(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", files)
    _refused(tmp_path, f"{path} lacks test_batch, so it is truncated or another archive")


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_truncated_pickle(tmp_path, kept):
    files = cifar10_python()
    files["data_batch_2"] = files["data_batch_2"][:kept]
    folder = write_files(tmp_path / "data", files)
    _refused(folder, "data_batch_2 is a truncated or damaged pickle .*; replace it")


class _Payload:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_pickle_with_a_forbidden_global_is_not_run(tmp_path):
    marker = tmp_path / "marker"
    payload = pickle.dumps({b"data": _Payload(os.mkdir, os.fspath(marker))}, protocol=2)
    folder = write_files(tmp_path / "data", cifar10_python() | {"test_batch": payload})
    _refused(folder, r"test_batch is a pickle that asks for \w+\.mkdir, which no CIFAR file needs and .* not run")
    assert not marker.exists()
    # The payload is one that ordinary unpickling would run.
    pickle.loads(payload)
    assert marker.is_dir()


@pytest.mark.parametrize(
    "name", ["builtins\neval", "numpy\nload", "numpy.core.multiarray\nscalar", "numpy\nndarray.tofile", "os\nsystem"]
)
def test_every_other_global_is_forbidden(tmp_path, name):
    payload = b"\x80\x02}(U\x04datac" + name.encode() + b"\nu."
    folder = write_files(tmp_path / "data", cifar10_python() | {"test_batch": payload})
    _refused(folder, f"test_batch is a pickle that asks for {name.replace(chr(10), '.')}, which no CIFAR file")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"cnumpy\nndarray\n(K\x02tR", "an array built directly"),
        (b"cnumpy\nndarray\n}U\x01aK\x01sb", "a state for a callable"),
        (b"cnumpy\ndtype\nN}U\x01aK\x01s\x86b", "a state for a callable"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\nK\x00tR", "an array of a subclass"),
        (b"cnumpy\ndtype\n(U\x02O8tR", "arrays of type 'O8' where integers are expected"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00utf8tR", "text in an encoding other than latin1"),
    ],
)
def test_admitted_globals_do_nothing_else(tmp_path, payload, reason):
    payload = b"\x80\x02}(U\x04data" + payload + b"u."
    folder = write_files(tmp_path / "data", cifar10_python() | {"test_batch": payload})
    _refused(folder, f"test_batch is a truncated or damaged pickle .*{reason}")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({b"data": np.zeros((2, 3072), np.uint8)}, "no entry 'labels', so it is not a file of CIFAR-10's Python"),
        ({b"labels": [1, 2]}, "no entry 'data'"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "'data' of .* holds 2 images .* holds 1 labels"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, -1]}, "has label -1 at example 1"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [10**30, 1]}, "has label 10{30} at example 0"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2.0]}, "other than a list of integers"),
        ({b"data": np.zeros((2, 3071), np.uint8), b"labels": [1, 2]}, r"uint8 \(2, 3071\) as its entry 'data'"),
        ({b"data": np.zeros((2, 3072), np.int16), b"labels": [1, 2]}, r"int16 \(2, 3072\) as its entry 'data'"),
        ({b"data": [1, 2], b"labels": [1, 2]}, r"list as its entry 'data' where uint8 \(N, 3072\) is expected"),
    ],
)
def test_pickles_of_other_content(tmp_path, entry, message):
    files = cifar10_python() | {"test_batch": python3_pickle(entry)}
    _refused(write_files(tmp_path / "data", files), f"{tmp_path / 'data' / 'test_batch'}.*{message}|{message}")


def test_a_pickle_that_is_no_dict(tmp_path):
    files = cifar10_python() | {"test_batch": pickle.dumps([1], protocol=2)}
    _refused(write_files(tmp_path / "data", files), "test_batch should hold a pickled dict but holds a list")


def test_cifar10_under_the_name_of_cifar100(tmp_path):
    files = cifar10_python()
    folder = write_files(tmp_path / "data", {"train": files["data_batch_1"], "test": files["test_batch"]})
    _refused(folder, "train has no entry 'fine_labels', so it is not a file of CIFAR-100's", "cifar100")


def test_labels_as_an_array(tmp_path):
    files = cifar10_python()
    images, labels = cifar10_parts()[1]
    files["test_batch"] = python3_pickle({b"data": table(images), b"labels": labels.astype(">i4")})
    check_cifar10(load("cifar10", data_dir=write_files(tmp_path / "data", files), download=False))


def test_the_binary_layout_is_preferred(tmp_path):
    write_files(tmp_path, cifar10_binary())
    write_files(tmp_path, dict.fromkeys(CIFAR10_PYTHON, b"not a pickle"))
    check_cifar10(load("cifar10", data_dir=tmp_path, download=False))
    shutil.move(tmp_path / "test_batch.bin", tmp_path / "elsewhere.bin")
    _refused(tmp_path, "data_batch_1 is a truncated or damaged pickle")
