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
    names = (f"{tmp_path}/t.csv#y", f"table:{tmp_path}/t.tsv#y", f"{tmp_path}/t.parquet#y")
    found = [datasets.load(name, limit=20) for name in names]
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


@pytest.mark.parametrize(
    ("column", "classes"),
    [
        (pl.Series(["eel", "ant"] * 15), ("ant", "eel")),
        (pl.Series(["eel", "ant"] * 15, dtype=pl.Categorical), ("ant", "eel")),
        (pl.Series([3, 7] * 15), (3, 7)),
        (pl.Series([True, False] * 15), (False, True)),
        (pl.Series([3.0, 7.0] * 15), None),
        (pl.Series([3, 7] * 15, dtype=pl.Decimal(4, 1)), None),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_of_names_or_integers_is_of_classes(kind, column, classes, tmp_path):
    frame = pl.DataFrame({"a": np.arange(30.0), "y": column})
    getattr(frame, f"write_{kind}")(tmp_path / f"t.{kind}")
    found = datasets.load(f"{tmp_path}/t.{kind}#y")
    assert (found.classes, found.is_regression) == (classes, classes is None)
    assert found.num_classes == (2 if classes else 1)
    assert [part.num_examples for part in (found.train, found.validation, found.test)] == [20, 4, 6]
    assert [len(np.unique(part.y)) for part in (found.train, found.validation, found.test)] == [2, 2, 2]
    rows = np.concatenate([part.x[:, 0] for part in (found.train, found.validation, found.test)])
    targets = np.concatenate([part.y for part in (found.train, found.validation, found.test)]).ravel()
    np.testing.assert_array_equal(np.unique(targets[np.argsort(rows)][::2]), targets[np.argmin(rows)])


def test_a_class_is_known_by_all_rows_of_a_file(tmp_path):
    """A column of numbers that ends in text, and one that ends in fractions."""
    rows = [f"{n},{n},{n % 2}" for n in range(200)] + [f"{n}.5,7,b" for n in range(5)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,y", *rows]))
    assert datasets.table(tmp_path / "t.csv", "y").classes == ("0", "1", "b")


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
    (lambda p: datasets.table(write(p, "a,y\n" + "1,2\n" * 20), "z"), r"bad\.csv, got 'z'; its columns are a, y"),
    (
        lambda p: datasets.table(write(p, "a,y\n" + "1,2\n" * 20 + "NA,2\n"), "y"),
        r"^Column 'a' of .*bad\.csv must be numbers, got the text 'NA' at row 20 \(counted from 0\); encode it",
    ),
    (lambda p: datasets.table(write(p, "a,y\n" + "1,2.5\n" * 3), "y"), r"The 3 examples are too few to hold out 0\.2"),
    (lambda p: datasets.table(write(p, "y\n" + "2.5\n" * 30), "y"), r"a column beside the target 'y', got none"),
    (
        lambda p: datasets.table(write(p, "a,y\n" + "1,2\n,2\n" * 10), "y"),
        r"Column 'a' of .* no missing values, got one at row 1; repair",
    ),
    (lambda p: datasets.table(write(p, "a,y\n" + "1,b\n1,\n" * 10), "y"), r"Column 'y' of .* got one at row 1; repair"),
    (
        lambda p: datasets.table(write(p, "a,y\n1,2\nnan,2\n"), "y"),
        r"Column 'a' of .* finite, got nan at row 1; repair",
    ),
    (
        lambda p: datasets.table(write(p, "a,y\n1,2.5\n2,inf\n"), "y"),
        r"Column 'y' of .* finite, got inf at row 1; repa",
    ),
    (
        lambda p: datasets.table(write(p, "a,y\n1,2\n2,NaN\n"), "y"),
        r"Column 'y' of .* finite, got nan at row 1; repair",
    ),
    (
        lambda p: datasets.table(write(p, "a,y\n" + "1,b\n1,c\n1,d\n" * 10 + "1,e\n"), "y"),
        r"at least 3 examples, .* got fewer of 'e'; drop or merge",
    ),
    (lambda p: datasets.table(write(p, "a,y\n" + "1,b\n" * 10), "y"), r"at least two classes, got only 'b'"),
    (lambda p: datasets.load("table:file.csv"), r"FILE\.csv#COLUMN .*, got 'table:file\.csv'; name them so"),
    (lambda p: datasets.load("file.csv"), r"FILE\.csv#COLUMN .*, got 'file\.csv'; name them so"),
    (lambda p: datasets.load("x.npy"), r"X\.npy,Y\.npy.*, got 'x\.npy'; name them so"),
    (lambda p: datasets.load("diabetes", limit=10**6), r"limit must be from 1 to 284"),
]


@pytest.mark.parametrize(("read", "message"), REFUSALS)
def test_refusals_say_what_to_do(read, message, tmp_path):
    with pytest.raises(DatasetError, match=message) as refusal:
        read(tmp_path)
    assert "\n" not in str(refusal.value)
