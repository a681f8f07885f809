"""Text of any folder, and tables."""

import sysconfig
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from relin import datasets
from relin.datasets import DatasetError

LIBRARY = Path(sysconfig.get_path("stdlib")) / "json"


def test_characters_of_the_standard_library():
    found = datasets.text(LIBRARY, pattern="*.py", length=32)
    text = "\n".join(path.read_text() for path in sorted(LIBRARY.glob("*.py")))
    x, y = found.train
    assert x.shape == y.shape
    assert x.shape[1] == 32
    assert x.dtype == y.dtype == np.int32
    spelt = "".join(found.vocabulary[token] for token in x.ravel())
    assert text.startswith(spelt)
    assert len(spelt) > 0.75 * len(text)
    np.testing.assert_array_equal(y[:, :-1], x[:, 1:])
    np.testing.assert_array_equal(y[:-1, -1], x[1:, 0])
    last = "".join(found.vocabulary[token] for token in found.test.y.ravel())
    assert last[-100:] in text[-200:]
    assert (
        max(part.max() for split in (found.train, found.validation, found.test) for part in split) < found.num_classes
    )
    assert found.num_classes == len(found.vocabulary)
    assert not found.is_regression


def test_bytes_and_unknown_characters(tmp_path):
    (tmp_path / "a.txt").write_text("abcd" * 400 + "é" * 200)
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe\x00")
    (tmp_path / ".hidden").write_text("no")
    found = datasets.text(tmp_path, length=4)
    assert found.vocabulary == "abcd\N{REPLACEMENT CHARACTER}"
    assert found.num_classes == 5
    assert found.test.x.max() == 4
    assert "1 files that are no UTF-8 text were left out" in found.split
    in_bytes = datasets.load(f"bytes:{tmp_path}")
    assert (in_bytes.num_classes, in_bytes.vocabulary) == (256, None)
    np.testing.assert_array_equal(in_bytes.train.x.ravel()[:4], list(b"abcd"))


def test_a_table_is_standardised_by_its_training_rows(tmp_path):
    values = np.random.default_rng(0).normal(3.0, 2.0, (50, 3))
    frame = pl.DataFrame({"a": values[:, 0], "y": values[:, 1], "b": values[:, 2] > 3, "c": [1] * 50})
    frame.write_csv(tmp_path / "t.csv")
    frame.write_csv(tmp_path / "t.tsv", separator="\t")
    frame.write_parquet(tmp_path / "t.parquet")
    found = [datasets.load(f"table:{tmp_path}/t.{kind}#y", limit=20) for kind in ("csv", "tsv", "parquet")]
    for other in found[1:]:
        np.testing.assert_array_equal(other.train.x, found[0].train.x)
    whole = datasets.table(tmp_path / "t.csv", "y")
    assert [len(part.y) for part in (whole.train, whole.validation, whole.test)] == [32, 8, 10]
    assert whole.train.x.shape == (32, 3)
    assert whole.train.y.shape == (32, 1)
    assert (whole.num_classes, whole.is_regression, len(found[0].train.y)) == (1, True, 20)
    np.testing.assert_allclose(whole.train.x.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(whole.train.x.std(0), [1, 1, 0], atol=1e-6)
    together = np.concatenate([part.y[:, 0] for part in (whole.train, whole.validation, whole.test)])
    np.testing.assert_allclose(np.corrcoef(np.sort(together), np.sort(values[:, 1]))[0, 1], 1, rtol=1e-6)


def test_diabetes():
    from sklearn.datasets import load_diabetes

    found = datasets.load("diabetes")
    assert found.input_shape == (10,)
    assert sum(len(part.y) for part in (found.train, found.validation, found.test)) == 442
    _, y = load_diabetes(return_X_y=True, scaled=False)
    rows = np.concatenate([part.x for part in (found.test, found.validation, found.train)])
    order = np.random.RandomState(0).permutation(442)
    targets = np.concatenate([part.y for part in (found.test, found.validation, found.train)])[:, 0]
    np.testing.assert_allclose(np.corrcoef(targets, y[order])[0, 1], 1, rtol=1e-6)
    assert rows.shape == (442, 10)


def write(tmp_path, text):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    return path


REFUSALS = [
    (lambda p: datasets.text(p / "nowhere"), r"nowhere is not a folder; pass one that holds text"),
    (lambda p: datasets.text(p), r"holds no text files that match"),
    (lambda p: datasets.text(LIBRARY, length=10**6), r"a tenth of them must be more than one window"),
    (lambda p: datasets.text(LIBRARY, length=0), r"`length` must be a whole number"),
    (lambda p: datasets.text(LIBRARY, level="word"), r'`level` must be "char" or "byte", got \'word\''),
    (lambda p: datasets.table(p / "a.xlsx", "y"), r"must be a \.csv, \.tsv or \.parquet file"),
    (lambda p: datasets.table(p / "a.csv", "y"), r"a\.csv cannot be read \(No such file"),
    (lambda p: datasets.table(write(p, "a,y\n1,2,3\n\x00"), "y"), r"is no table that can be read"),
    (lambda p: datasets.table(write(p, "a,y\n" + "1,2\n" * 20), "z"), r"column of the table, got 'z'; they are a, y"),
    (lambda p: datasets.table(write(p, "a,y\n" + "u,2\n" * 20), "y"), r"must be numbers, got 'a' of String"),
    (lambda p: datasets.table(write(p, "a,y\n" + "1,2\n" * 3), "y"), r"at least 2 columns and 10 rows, got 2 and 3"),
    (lambda p: datasets.table(write(p, "a,y\n" + "1,2\n,2\n" * 10), "y"), r"no missing values, got some in 'a'"),
    (lambda p: datasets.load("table:file.csv"), r"named table:FILE#COLUMN"),
    (lambda p: datasets.load("diabetes", limit=10**6), r"limit must be from 1 to 284"),
]


@pytest.mark.parametrize(("read", "message"), REFUSALS)
def test_refusals_say_what_to_do(read, message, tmp_path):
    with pytest.raises(DatasetError, match=message) as refusal:
        read(tmp_path)
    assert "\n" not in str(refusal.value)
