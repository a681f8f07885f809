"""Arrays in files, folders of Hugging Face's library, and what identifies one's own data."""

import hashlib
import io
import json
import subprocess
import zipfile

import numpy as np
import polars as pl
import pytest
from PIL import Image

from relin.datasets import DatasetError, _expanding, identity, is_known, load
from relin.datasets._names import folder_name

N = 30
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3))
Y = np.arange(N) % 3


def save(folder, **arrays):
    np.savez(folder / "d.npz", **arrays)
    return f"{folder}/d.npz"


def test_names_of_ones_own_data():
    for name in ("d.npz", "a/D.NPZ", "x.npy,b/y.npy", "a.csv#y", "a#b.tsv#y", "a.PARQUET#the y", "table:a.txt#y"):
        assert is_known(name), name
    for name in ("huggingface:a", "huggingface:a#y", "text:a", "bytes:a"):
        assert is_known(name), name
    for name in ("x.npy", "x.npy,y.npy,z.npy", "a.csv", "a.csv#", "a.txt#y", "huggingface:", "npz"):
        assert not is_known(name), name
    assert not is_known("huggingface:a#")
    assert not is_known("huggingface:#y")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("digits", "digits"),
        ("/data/d.npz", "d.npz"),
        ("a/x.npy,b/y.npy", "x.npy"),
        ("a/b.csv#the y/n", "b.csv-the_y_n"),
        ("table:a/b.txt#y", "b.txt-y"),
        ("huggingface:../a/b/#y", "huggingface-b-y"),
        ("text:corpus", "text-corpus"),
    ],
)
def test_folders_are_named_after_files(name, folder):
    assert folder_name(name) == folder


def test_parts_of_an_npz(tmp_path):
    parts = {part: (X[:k], Y[:k]) for part, k in (("train", N), ("validation", 9), ("test", 12))}
    for x, y, validation in (
        ("x_{}", "y_{}", "validation"),
        ("{}_images", "{}_labels", "val"),
        ("X_{}", "Y_{}", "dev"),
    ):
        spelt = {"train": "train", "validation": validation, "test": "test"}
        arrays = {
            name.format(spelt[p]): array for p, pair in parts.items() for name, array in zip((x, y), pair, strict=True)
        }
        found = load(save(tmp_path, **arrays))
        for part, (inputs, classes) in parts.items():
            np.testing.assert_array_equal(getattr(found, part).x, inputs.astype(np.float32))
            np.testing.assert_array_equal(getattr(found, part).y, classes)
    whole = load(save(tmp_path, x=X, y=Y))
    assert [part.num_examples for part in (whole.train, whole.validation, whole.test)] == [21, 3, 6]
    assert whole.split.endswith("given, and 21 train.")


def test_grey_pictures_text_labels_and_compression(tmp_path):
    names = np.array(["eel", "ant", "cat"])[Y]
    pictures = RNG.integers(0, 256, (N, 5, 4), np.uint8)
    np.savez_compressed(tmp_path / "d.npz", data=pictures, labels=names)
    np.save(tmp_path / "x.npy", np.asfortranarray(pictures))
    np.save(tmp_path / "y.npy", names[:, None])
    found, pair = load(f"{tmp_path}/d.npz", limit=6), load(f"{tmp_path}/x.npy,{tmp_path}/y.npy", limit=6)
    assert found.input_shape == (5, 4, 1)
    assert found.classes == ("ant", "cat", "eel")
    assert sorted(found.train.y) == [0, 0, 1, 1, 2, 2]
    for one, other in zip((*found.train, *found.test), (*pair.train, *pair.test), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_dictionary_in_an_npz(tmp_path):
    found = load(save(tmp_path, **{"x/left": X, "x/right": Y, "y": X[:, :2]}))
    assert found.input_shape == {"left": (3,), "right": ()}
    assert (found.num_classes, found.is_regression) == (2, True)


class Trap:
    def __reduce__(self):
        return pytest.fail, ("run",)


def damaged(folder):
    """An array whose header announces more than there is."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)})
    with zipfile.ZipFile(folder / "d.npz", "w") as archive:
        archive.writestr("x.npy", content.getvalue() + bytes(80))
        archive.writestr("y.npy", content.getvalue() + bytes(80))
    return f"{folder}/d.npz"


def bomb(folder):
    """Two gibibytes of zeros, by what its directory says."""
    with zipfile.ZipFile(folder / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(80))
    content = (folder / "d.npz").read_bytes()
    (folder / "d.npz").write_bytes(content.replace((80).to_bytes(4, "little"), (2**31).to_bytes(4, "little")))
    return f"{folder}/d.npz"


def text_of(folder, text):
    (folder / "d.npz").write_text(text)
    return f"{folder}/d.npz"


REFUSALS = [
    (lambda p: save(p, x=X), r"has no y of the train part among its arrays x; name them x and y, or x_train"),
    (lambda p: save(p, x_test=X, y_test=Y), "has no training part among its arrays x_test, y_test; name"),
    (lambda p: save(p, x=X, y=Y, y_test=Y), "has no x of the test part among its arrays x, y, y_test"),
    (lambda p: save(p, arr_0=X, arr_1=Y), "has arrays of unknown use, arr_0, arr_1; name them"),
    (lambda p: save(p, x=X, y=Y, x_train=X), "has two arrays for one use, x and x_train"),
    (lambda p: save(p, x=X, y=np.array([Trap()] * N, object)), "'y' in .* holds Python objects, which could run code"),
    (lambda p: save(p, x=X, y=Y.astype("M8[s]")), "y of .* must be classes or values, got datetime64"),
    (lambda p: save(p, x=np.zeros(N, [("a", "f4")]), y=Y), "must be numbers, got .*'a'.*; encode"),
    (damaged, "announces 8,796,093,022,208 bytes but has 80, so it is damaged"),
    (bomb, r"would expand to 2,147,483,648, more than 100 times as many"),
    (lambda p: text_of(p, "no"), r"d\.npz is no npz file that can be read \(File is not a zip file\); save it again"),
    (lambda p: f"{p}/none.npz", r"none\.npz cannot be read \(No such file"),
    (lambda p: text_of(p, "no") and f"{p}/x.npy,{p}/y.npy", r"x\.npy cannot be read \(No such file"),
    (
        lambda p: f"huggingface:{p}",
        "has no state.json and no dataset_dict.json; name the folder that save_to_disk wrote",
    ),
    (lambda p: f"huggingface:{p}/none", "none is not a folder"),
]


@pytest.mark.parametrize(("name", "message"), REFUSALS)
def test_files_are_refused_in_a_sentence(name, message, tmp_path):
    with pytest.raises(DatasetError, match=message) as refusal:
        load(name(tmp_path))
    assert "\n" not in str(refusal.value)


def test_a_small_parquet_file_of_many_rows_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(_expanding, "_ALWAYS", 1 << 20)
    pl.select(pl.repeat(0, 2**18, dtype=pl.Int8).alias("a"), y=pl.lit(1)).write_parquet(tmp_path / "d.parquet")
    with pytest.raises(DatasetError, match="would expand to 4,194,304, more than 100 times as many"):
        load(f"{tmp_path}/d.parquet#y")


def write_split(folder, frame, features, shards=1):
    """As `Dataset.save_to_disk` of version 5.2 lays a split out."""
    folder.mkdir(parents=True)
    names = [f"data-{shard:05}-of-{shards:05}.arrow" for shard in range(shards)]
    rows = -(-len(frame) // shards)
    for shard, name in enumerate(names):
        frame[shard * rows : (shard + 1) * rows].write_ipc_stream(folder / name)
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))


def png(array):
    content = io.BytesIO()
    Image.fromarray(array).save(content, "png")
    return {"bytes": content.getvalue(), "path": None}


def test_a_folder_of_pictures_with_splits(tmp_path):
    pixels = RNG.integers(0, 256, (N, 4, 5, 3), np.uint8)
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog", "eel"], "_type": "ClassLabel"}}
    frame = pl.DataFrame({"image": [png(array) for array in pixels], "label": Y})
    write_split(tmp_path / "d" / "train", frame, features, shards=2)
    write_split(tmp_path / "d" / "val", frame[:9], features)
    write_split(tmp_path / "d" / "test", frame[:6], features)
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "val", "test", "unlabelled"]}')
    found = load(f"huggingface:{tmp_path}/d")
    scaled = pixels / 255
    np.testing.assert_allclose(found.train.x, (scaled - scaled.mean()) / scaled.std(), atol=1e-5)
    np.testing.assert_array_equal(found.validation.x, found.train.x[:9])
    assert found.classes == ("cat", "dog", "eel")
    assert found.test.y.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.split == "All parts were given. (unlabelled left out.)"


def test_a_folder_of_several_columns(tmp_path):
    tokens = RNG.integers(0, 9, (N, 4))
    frame = pl.DataFrame(
        {"ids": tokens.tolist(), "mask": (tokens > 3).tolist(), "number": X[:, 0], "kind": list("abc") * 10}
    )
    write_split(tmp_path / "d", frame, {})
    found = load(f"huggingface:{tmp_path}/d#kind")
    assert found.input_shape == {"ids": (4,), "mask": (4,), "number": ()}
    assert (found.train.x["ids"].dtype, found.train.x["mask"].dtype) == (np.int32, bool)
    np.testing.assert_array_equal(found.train.x["ids"] > 3, found.train.x["mask"])
    next_tokens = pl.DataFrame({"x": tokens[:, :3].tolist(), "labels": tokens[:, 1:].tolist()})
    write_split(tmp_path / "e", next_tokens, {})
    text = load(f"huggingface:{tmp_path}/e")
    np.testing.assert_array_equal(text.train.x[:, 1:], text.train.y[:, :2])
    assert text.num_classes == tokens.max() + 1


FRAMES = [
    ({"x": [[1, 2], [1]] * 15, "label": [0, 1] * 15}, "rows of one length, got 2 at row 0 and 1 at row 1"),
    ({"x": ["a", "b"] * 15, "label": [0, 1] * 15}, "must be numbers, got the text 'a' at row 0"),
    ({"x": [b"a", b"b"] * 15, "label": [0, 1] * 15}, "must be numbers, got Binary"),
    ({"x": [[1, None]] * 30, "label": [0, 1] * 15}, "In lists of 2, one after another: Column 'x' .* got one at row 1"),
    ({"x": [{"bytes": b"no", "path": "a"}] * 30, "label": [0, 1] * 15}, "Column 'x' of .* holds no picture at row 0"),
    ({"x": [{"bytes": None, "path": "a"}] * 30, "label": [0, 1] * 15}, "a picture's file at row 0; store its bytes"),
    (
        {"x": [png(np.zeros(shape, np.uint8)) for shape in [(2, 2), (2, 3)]] * 15, "label": [0, 1] * 15},
        r"pictures of one size, got \(2, 3, 1\) at row 1 and \(2, 2, 1\) at row 0",
    ),
    ({"x": [png(np.zeros((2, 2), np.uint16))] * 30, "label": [0, 1] * 15}, "pictures of bytes, got mode I;16 at row 0"),
    ({"x": [0.0] * 30, "y": [0, 1] * 15}, "has no column named label; name one with #COLUMN: x, y"),
]


@pytest.mark.parametrize(("columns", "message"), FRAMES)
def test_columns_are_refused_in_a_sentence(columns, message, tmp_path):
    write_split(tmp_path / "d", pl.DataFrame(columns), {})
    with pytest.raises(DatasetError, match=message) as refusal:
        load(f"huggingface:{tmp_path}/d")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("state.json", '{"_data_files": [{"filename": "../x.arrow"}]}', "names no files of data"),
        ("state.json", '{"_data_files": [{"filename": "x.arrow"}]}', r"x\.arrow cannot be read \(No such file"),
        ("state.json", "[]", "is no JSON object, so it is damaged"),
        ("data-00000-of-00001.arrow", "no", r"cannot be read \(failed to fill whole buffer\); save the"),
    ],
)
def test_damaged_folders(file, content, message, tmp_path):
    write_split(tmp_path / "d", pl.DataFrame({"x": [0.0] * 30, "label": [0, 1] * 15}), {})
    (tmp_path / "d" / file).write_text(content)
    with pytest.raises(DatasetError, match=message):
        load(f"huggingface:{tmp_path}/d")


def test_the_identity_is_what_sha256sum_prints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.save("y.npy", Y)
    np.savez("d.npz", x=X, y=Y)
    printed = subprocess.run(["sha256sum", "x.npy", "y.npy"], capture_output=True, check=True).stdout
    assert identity("x.npy,y.npy") == {"sha256": hashlib.sha256(printed).hexdigest(), "files": 2}
    assert identity("d.npz") == {"sha256": hashlib.sha256((tmp_path / "d.npz").read_bytes()).hexdigest(), "files": 1}
    assert identity("mnist") == {}
    with pytest.raises(DatasetError, match="is not a known dataset"):
        identity("mnits")
    with pytest.raises(DatasetError, match=r"none\.npz cannot be read"):
        identity("none.npz")


def test_the_identity_of_a_folder_tells_a_changed_file_and_leaves_caches_out(tmp_path):
    frame = pl.DataFrame({"x": [0.0] * 30, "label": [0, 1] * 15})
    write_split(tmp_path / "d", frame, {})
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("abc")
    names = (f"huggingface:{tmp_path}/d#label", f"text:{tmp_path}/text")
    first = [identity(name) for name in names]
    (tmp_path / "d" / "cache-1.arrow").write_text("x")
    (tmp_path / "text" / ".hidden").write_text("x")
    assert [identity(name) for name in names] == first
    frame[::-1].write_ipc_stream(tmp_path / "d" / "data-00000-of-00001.arrow")
    (tmp_path / "text" / "a.txt").rename(tmp_path / "text" / "b.txt")
    (tmp_path / "text" / "b.txt").write_text("abd")
    assert [identity(name) != old for name, old in zip(names, first, strict=True)] == [True, True]
