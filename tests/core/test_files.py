"""Files that are whole or absent, and tell when they were changed."""

import os
import threading

import numpy as np
import polars as pl
import pytest

from relin._common.files import (
    as_json,
    from_json,
    is_damaged,
    open_file,
    read_file,
    remove_parts,
    sealed,
    write_atomically,
)
from relin._core.storage import from_safetensors, to_safetensors
from relin.study._records import to_parquet

RECORDS = pl.DataFrame({"schedule": ["every-4"] * 9, "step": range(9), "loss": np.random.default_rng(0).normal(size=9)})
TENSORS = {"w": np.arange(6.0), "b": np.float32([1.5])}
KINDS = {
    "parquet": lambda: to_parquet(RECORDS),
    "json": lambda: as_json({"study": "frequency", "seeds": 3, "name": "é"}),
    "safetensors": lambda: to_safetensors(TENSORS, "test"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_changed_bit_is_noticed(kind):
    content = KINDS[kind]()
    assert not is_damaged(content)
    at = content.index(b"relin-digest")
    entry = range(at - 4, at + 96)  # key, length and digest
    flips = [(place, place % 8) for place in range(len(content))] + [(p, b) for p in entry for b in range(8)]
    for place, bit in flips:
        if place < len(content):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            assert is_damaged(bytes(damaged)), (place, bit)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_cut_off_or_added_are_noticed(kind):
    content = KINDS[kind]()
    at = content.index(b"relin-digest")
    for damaged in (content[:-1], content + b"\0", content[1:], content[: at + 40], content + content):
        assert is_damaged(damaged)


def test_the_digest_is_that_of_the_blank_file():
    from hashlib import sha256

    content = b'{"a": 1, "relin-digest": "sha256:' + 64 * b"0" + b'"}'
    assert sealed(content) == content.replace(64 * b"0", sha256(content).hexdigest().encode())


def test_files_keep_their_formats(tmp_path):
    """Anything that reads Parquet, JSON or safetensors reads them."""
    import json

    import safetensors.numpy

    path = write_atomically(tmp_path / "records.parquet", to_parquet(RECORDS))
    assert pl.read_parquet(path).equals(RECORDS)
    path = write_atomically(tmp_path / "t.safetensors", to_safetensors(TENSORS, "test"))
    for found in (safetensors.numpy.load_file(path), from_safetensors(path)):
        assert {name: value.tolist() for name, value in found.items()} == {"w": [0, 1, 2, 3, 4, 5], "b": [1.5]}
    settings = {"a": [1, {"b": None}]}
    assert json.loads(as_json(settings)).keys() == {"a", "relin-digest"}
    assert from_json(as_json(settings)) == settings
    assert from_json(b'{"a": 1}') == {"a": 1}  # from before there were digests


@pytest.mark.parametrize("depth", [101, 10**5])
def test_json_nested_without_end(depth):
    with pytest.raises(ValueError, match="nested too deeply"):
        from_json(("[" * depth + "]" * depth).encode())
    assert from_json(b"[" * 99 + b"]" * 99)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(OSError, match="not a regular file"):
            open_file(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path)
    (tmp_path / "link").symlink_to(write_atomically(tmp_path / "file", "text"))
    assert read_file(tmp_path / "link") == b"text"


def test_a_folder_that_is_gone_is_not_made_again(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "gone" / "file", b"")
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_is_being_written_is_removed(tmp_path):
    """Another thread removes parts as fast as it can: every write must still arrive, and nothing stay behind."""
    stop = threading.Event()

    def remove():
        while not stop.is_set():
            remove_parts(tmp_path)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        for number in range(200):
            path = write_atomically(tmp_path / "file", str(number))
            assert path.read_text() == str(number)
    finally:
        stop.set()
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
