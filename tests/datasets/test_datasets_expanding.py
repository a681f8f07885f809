"""Small files that expand, and files without end: no more is read than a header or the published size says."""

import gzip
import io
import os
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import polars as pl
import pytest
from dataset_writers import IDX_TEST, IDX_TRAIN, idx_images, idx_labels, random_images

from relin import datasets
from relin.datasets import DatasetError, _files, _generated
from relin.datasets._unpickle import unpickle

MEGABYTE = 1 << 20
ZEROS = 64 * MEGABYTE
"""So many follow where none should; their compressed bytes take 1/1000 of it."""


def peak(load):
    """The most memory that Python objects and arrays took."""
    tracemalloc.start()
    try:
        load()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(load, message, most=8 * MEGABYTE):
    def use():
        with pytest.raises(DatasetError, match=message) as caught:
            load()
        assert "\n" not in str(caught.value)

    assert peak(use) < most


def zipped(head):
    """`head` and then `ZEROS` zeros, compressed."""
    content = io.BytesIO()
    with gzip.open(content, "wb", 9) as file:
        file.write(head)
        for _ in range(ZEROS // MEGABYTE):
            file.write(bytes(MEGABYTE))
    return content.getvalue()


@pytest.fixture
def mnist(tmp_path):
    train, test = random_images(12, (28, 28, 1), 10, 0), random_images(5, (28, 28, 1), 10, 1)
    for names, (images, labels) in ((IDX_TRAIN, train), (IDX_TEST, test)):
        for name, content in zip(names, (idx_images(images), idx_labels(labels)), strict=True):
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content, 1))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "head", "message"),
    [
        (
            IDX_TRAIN[0],
            struct.pack(">IIII", 0x803, 12, 28, 28),
            "too long: .* 12×28×28 = 9408 .* but more",
        ),
        (
            IDX_TRAIN[1],
            struct.pack(">II", 0x801, 12),
            "too long: .* 12 bytes of labels but more",
        ),
        (IDX_TRAIN[0], struct.pack(">IIII", 0x803, 2**32 - 1, 2**32 - 1, 28), "holds images of 4294967295×28 pixels"),
        (IDX_TRAIN[0], b"", "should be an IDX file of images .* begins with the number 0"),
        (IDX_TRAIN[0], struct.pack(">IIII", 0x803, 0, 28, 28), "holds no images at all"),
    ],
)
def test_gzip_that_expands_beyond_its_header(mnist, name, head, message):
    (mnist / f"{name}.gz").write_bytes(zipped(head))
    refused(lambda: datasets.load("mnist", data_dir=mnist), message)


def test_idx_that_announces_more_than_there_is(mnist):
    (mnist / f"{IDX_TRAIN[0]}.gz").unlink()
    (mnist / IDX_TRAIN[0]).write_bytes(struct.pack(">IIII", 0x803, 2**31, 28, 28) + bytes(1000))
    refused(lambda: datasets.load("mnist", data_dir=mnist), "truncated: .* bytes of images but 1000 follow")


def archive(path, members):
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as file:
        for name, size in members:
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = size
            file.addfile(info, io.BytesIO(bytes(size)))
    return path


@pytest.fixture
def small_limit(monkeypatch):
    """As if 100 examples had been published, so that the tests are quick."""
    source = _files.SOURCES["cifar10"]
    limited = type(source)(**{**vars(source), "num_train": 80, "num_test": 20})
    monkeypatch.setitem(_files.SOURCES, "cifar10", limited)


EXPANDED = "holds more than the dataset it is named after; replace it with the official file"


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("name", ["data_batch_1.bin", "readme.html"])
def test_archives_that_expand(tmp_path, name):
    archive(tmp_path / "cifar-10-binary.tar.gz", [(name, ZEROS)])
    refused(lambda: datasets.load("cifar10", data_dir=tmp_path), EXPANDED)


@pytest.mark.usefixtures("small_limit")
def test_archive_with_a_header_that_expands(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, ZEROS
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(zipped(info.tobuf(tarfile.GNU_FORMAT)))
    refused(lambda: datasets.load("cifar10", data_dir=tmp_path), EXPANDED)


def test_archive_with_holes(tmp_path):
    """A sparse member of 2³⁵ bytes, none of them stored."""
    info = tarfile.TarInfo("data_batch_1.bin")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:398], header[398:410] = b"00000000000\0", b"00000000000\0"
    header[483:495] = b"\x80" + (2**35).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(gzip.compress(bytes(header) + bytes(1024)))
    refused(lambda: datasets.load("cifar10", data_dir=tmp_path), "lacks data_batch_1.bin, .* so it is truncated")


@pytest.mark.usefixtures("small_limit")
def test_extracted_files_larger_than_published(tmp_path):
    for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 40)  # takes no room on the disk
    refused(lambda: datasets.load("cifar10", data_dir=tmp_path), EXPANDED)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x80\x02Nr\xff\xff\xff\x0f.", "an object at place 268435455 of 9 bytes"),
        (b"\x80\x02Np268435455\n.", "an object at place 268435455 of"),
    ],
)
def test_a_pickle_that_reserves_memory(content, reason):
    refused(lambda: unpickle("batch", content), f"batch is a truncated or damaged pickle .*{reason}")


def test_a_pickle_that_encodes_a_text_again_and_again():
    text = b"X" + MEGABYTE.to_bytes(4, "little") + MEGABYTE * b"a" + b"q\x01"
    calls = 64 * b"c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R"
    payload = b"\x80\x02]" + text + b"a(" + calls + b"e."
    assert len(pickle.loads(payload)) == 65
    refused(lambda: unpickle("batch", payload), "damaged pickle .*the same text encoded again and again")


@pytest.mark.parametrize("kind", ["compressed", "shape"])
def test_an_npz_that_expands(tmp_path, kind):
    path = tmp_path / "cache.npz"
    head = io.BytesIO()
    shape = (ZEROS // 8,) if kind == "compressed" else (1 << 50,)
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": shape})
    content = head.getvalue() + (bytes(ZEROS) if kind == "compressed" else b"")
    packing = zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", packing) as file:
        file.writestr("x.npy", content)
    del content
    refused(lambda: _generated._read_cache(path), "cache.npz is not a readable npz file .* delete it")


def test_compressed_tables_are_not_expanded(tmp_path):
    frame = pl.DataFrame({"a": range(20), "y": np.arange(20.0)})
    for name, packed in (
        ("gzip", gzip.compress(frame.write_csv().encode())),
        ("zstd", b"\x28\xb5\x2f\xfd" + bytes(90)),
    ):
        (tmp_path / "t.csv").write_bytes(packed)
        refused(
            lambda: datasets.table(tmp_path / "t.csv", "y"), f"t.csv is compressed with {name}; decompress it first"
        )

    (tmp_path / "t.csv").write_bytes(zlib.compress(b"a,y\n" + b"1,2\n" * 20))
    with pytest.raises(DatasetError, match=r"no table that can be read|must be a column"):
        datasets.table(tmp_path / "t.csv", "y")
    frame.rename({"a": "x^2"}).write_csv(tmp_path / "t.csv")  # begins as a zlib stream would
    assert datasets.table(tmp_path / "t.csv", "y").train.x.shape[1] == 1
    frame.write_csv(tmp_path / "t.csv", include_bom=True)
    assert datasets.table(tmp_path / "t.csv", "y").train.x.shape[1] == 1


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("kind", ["zero", "pipe"])
def test_only_regular_files_are_tables(tmp_path, suffix, kind):
    path = tmp_path / f"t{suffix}"
    path.symlink_to("/dev/zero") if kind == "zero" else os.mkfifo(path)
    refused(lambda: datasets.table(path, "y"), r"cannot be read \(not a regular file\)")


def test_text_without_end_is_left_out(tmp_path):
    (tmp_path / "a.txt").write_text("abcdefgh" * 400)
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    assert datasets.text(tmp_path, length=4).num_classes == 8


def test_files_named_as_mnist_without_end_are_not_opened(mnist, tmp_path):
    (mnist / f"{IDX_TRAIN[0]}.gz").unlink()
    (mnist / IDX_TRAIN[0]).symlink_to("/dev/zero")
    refused(lambda: datasets.load("mnist", data_dir=mnist), f"{IDX_TRAIN[0]} is missing")
