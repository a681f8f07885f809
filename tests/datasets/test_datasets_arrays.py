"""`from_arrays`: what is a class and what a value, how parts are held out, and what is refused."""

import numpy as np
import pytest

from relin.datasets import Dataset, DatasetError, from_arrays, identity
from relin.datasets._assemble import limited

N = 40
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3))
Y = np.arange(N) % 4


def three(x=X, y=Y):
    """The same examples in all parts."""
    return (x, y), (x, y), (x, y)


def with_value(array, place, value):
    changed = np.array(array, float)
    changed[place] = value
    return changed


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (Y, (0, 1, 2, 3)),
        (Y[:, None], (0, 1, 2, 3)),
        (10 - 3 * Y.astype(np.int8), (1, 4, 7, 10)),
        (Y > 1, (False, True)),
        (np.array(["eel", "ant", "cat", "bee"])[Y], ("ant", "bee", "cat", "eel")),
        (np.array(["eel", "ant", "cat", "bee"], object)[Y], ("ant", "bee", "cat", "eel")),
        (np.array([b"b", b"a"])[Y % 2], ("a", "b")),
        (["no", "yes"] * (N // 2), ("no", "yes")),
    ],
)
def test_integers_booleans_and_text_are_classes(y, classes):
    found = from_arrays(*three(y=y))
    assert (found.classes, found.num_classes, found.is_regression) == (classes, len(classes), False)
    assert found.test.y.dtype == np.int32
    names = np.ravel(y).tolist()
    assert [found.classes[c] for c in found.test.y] == [n.decode() if isinstance(n, bytes) else n for n in names]


@pytest.mark.parametrize("shape", [(N,), (N, 1), (N, 2), (N, 5, 2)])
def test_floats_are_values_and_stay_as_they_are(shape):
    y = RNG.normal(size=shape)
    found = from_arrays(*three(y=y))
    assert found.is_regression
    assert found.classes is None
    assert found.num_classes == (1 if len(shape) == 1 else shape[-1])
    np.testing.assert_array_equal(found.train.y, y.astype(np.float32).reshape(N, *shape[1:] or (1,)))
    assert found.normalisation == "none, float64 taken as float32"
    assert from_arrays(*three(y=y), dtype=np.float64).train.x.dtype == np.float64


def test_classes_by_position_are_numbered_as_the_tokens_are():
    tokens = RNG.integers(0, 7, (N, 6))
    tokens[0, 0] = 9
    found = from_arrays((tokens[:, :-1], tokens[:, 1:]))
    assert (found.num_classes, found.classes, found.train.x.dtype, found.train.y.dtype) == (10, None, "i4", "i4")
    alone = from_arrays(*three(X, tokens[:, 1:] % 5))
    assert alone.num_classes == 5


@pytest.mark.parametrize("seed", [0, 1])
def test_held_out_examples_are_of_each_class_its_share(seed):
    """Counted by hand: 60 of a, 30 of b, 10 of c, of which a fifth tests, and a fifth of the others validates."""
    y = np.array(60 * ["a"] + 30 * ["b"] + 10 * ["c"])
    found = from_arrays((np.arange(100.0)[:, None], y), seed=seed)
    counts = {part: np.bincount(getattr(found, part).y).tolist() for part in ("train", "validation", "test")}
    assert counts == {"test": [12, 6, 2], "validation": [9, 4, 1], "train": [39, 20, 7]}
    rows = np.concatenate([getattr(found, part).x[:, 0] for part in counts])
    assert sorted(rows) == list(range(100))
    for part in counts:
        x, classes = getattr(found, part)
        np.testing.assert_array_equal(y[x[:, 0].astype(int)], np.array(found.classes)[classes])
    assert found.split == (
        f"In a fixed random order (seed {seed}), of each class its share, 20 test and 14 validate of the 100 examples "
        "given, and 66 train."
    )


def test_one_example_of_each_class_is_in_each_part():
    found = from_arrays((X[:9], np.arange(9) % 3))
    assert all(sorted(part.y) == [0, 1, 2] for part in (found.train, found.validation, found.test))


def test_seeds_choose_others_and_given_parts_stay():
    one, other = (from_arrays((X, Y), seed=seed).test.x for seed in (0, 1))
    assert not np.array_equal(one, other)
    given = from_arrays((X, Y), test=(X[:8] + 1, Y[:8]))
    np.testing.assert_array_equal(given.test.x, (X[:8] + 1).astype(np.float32))
    assert (given.train.num_examples, given.validation.num_examples) == (N - 8, 8)
    assert "8 validate of the 40 examples that were given for training" in given.split


def test_a_limit_keeps_of_sorted_classes_each():
    sorted_by_class = from_arrays(*three(y=np.sort(Y)))
    few = limited(sorted_by_class, 8)
    assert np.bincount(few.train.y).tolist() == [2, 2, 2, 2]
    assert few.test.num_examples == N
    with pytest.raises(
        DatasetError, match=r"The 3 training examples of arrays that are kept .* got none of [0-3]; keep more"
    ):
        limited(sorted_by_class, 3)


def test_bytes_are_pixels():
    pixels = RNG.integers(0, 256, (N, 4, 4), np.uint8)
    found = from_arrays((pixels, Y), (pixels[:8], Y[:8]), (pixels[:8], Y[:8]))
    scaled = pixels / 255
    np.testing.assert_allclose(found.train.x, (scaled - scaled.mean()) / scaled.std(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.test.x, found.train.x[:8])
    assert from_arrays(*three(np.full((N, 2), 7, np.uint8))).train.x.max() == 0


def test_several_inputs_stay_together():
    x = {"tokens": np.arange(N)[:, None], "more": (X, Y > 1)}
    found = from_arrays((x, Y))
    assert found.input_shape == {"tokens": (1,), "more": ((3,), ())}
    assert repr(found.test) == (
        "Examples(x['tokens']=int32[8, 1], x['more'][0]=float32[8, 3], x['more'][1]=bool[8], y=int32[8])"
    )
    for part in (found.train, found.validation, limited(found, 8).train):
        rows = part.x["tokens"][:, 0]
        np.testing.assert_array_equal(part.x["more"][0], X[rows].astype(np.float32))
        np.testing.assert_array_equal(part.x["more"][1], part.y > 1)
        np.testing.assert_array_equal(part.y, Y[rows])


def test_a_network_of_several_inputs_is_trained():
    import jax
    import jax.numpy as jnp
    import optax

    import relin as il

    def apply(params, x):
        return x["a"] @ params["a"] + params["b"][x["b"][0]]

    data = from_arrays(({"a": X, "b": (Y.astype(np.uint16),)}, Y))
    params = {"a": jnp.zeros((3, 4)), "b": jnp.zeros((4, 4))}
    problem = il.Problem(apply, il.CrossEntropy())
    solver = il.WeightSpace(optax.sgd(1.0))
    found = il.train(problem, solver, il.Every(4), params, data, num_steps=20, key=jax.random.key(0))
    assert np.argmax(apply(found.params, data.test.x), 1).tolist() == data.test.y.tolist()


def test_classes_that_a_part_lacks_are_named():
    with pytest.warns(UserWarning, match="In arrays, validation has no example of 'd': what is measured there says"):
        found = from_arrays(
            (X, np.array(list("abcd"))[Y]), (X[:3], np.array(list("abc"))), (X[:4], np.array(list("abcd")))
        )
    assert found.split.endswith("Warning: validation has no example of 'd'.")


ONES = np.eye(4, dtype=int)[Y]
REFUSALS = [
    (lambda: from_arrays((with_value(X, (7, 2), np.nan), Y)), r"x of arrays must be finite, got nan at example 7, pos"),
    (lambda: from_arrays((X, with_value(Y, 5, np.inf))), r"y of arrays must be finite, got inf at example 5 \(counted"),
    (
        lambda: from_arrays(({"a": (X, with_value(X, (7, 2), -np.inf))}, Y), *three()[:2]),
        r"x\['a'\]\[1\] of the train part of arrays must be finite, got -inf at example 7, position \[2\]",
    ),
    (lambda: from_arrays((X[:0], Y[:0])), "arrays must hold at least one example, got none"),
    (lambda: from_arrays((X, Y), (X[:0], Y[:0])), "the validation part of arrays must hold at least one example"),
    (lambda: from_arrays((X, Y[:-1])), "same number of examples, got 40 and 39 in arrays"),
    (lambda: from_arrays(((X, X[:-1]), Y)), r"same number of examples, got 40 in x\[0\], 39 in x\[1\] of arrays"),
    (lambda: from_arrays((X, 0 * Y)), "at least two classes, got only 0"),
    (lambda: from_arrays(*three(y=Y == 9)), "at least two classes, got only False"),
    (lambda: from_arrays((X, Y), test=(X, Y + 1)), "test part of arrays has classes that the training part lacks, 4;"),
    (lambda: from_arrays((X, Y), test=(X, Y.astype(str))), r"must be alike, got <U21\[40\] in test and int64\[40\]"),
    (lambda: from_arrays((X, Y), test=(X, Y + 0.5)), "integers are classes: give values to predict as floats"),
    (lambda: from_arrays((X, Y), test=(X[:, :2], Y)), r"got x floats of shape \[2\] in test and floats of shape \[3\]"),
    (lambda: from_arrays(({"a": X}, Y), test=({"b": X}, Y)), r"got x\['a'\] missing in test and floats of shape"),
    (lambda: from_arrays((X, Y), test=(X.astype(np.uint8), Y)), r"got x bytes of shape \[3\] in test"),
    (lambda: from_arrays((X, ONES)), r"got one-hot vectors; give numpy\.argmax\(y, axis=1\)"),
    (lambda: from_arrays((X, ONES.astype(float))), "got one-hot vectors"),
    (lambda: from_arrays((X.astype(str), Y)), "x of arrays must be numbers, got <U32, such as "),
    (lambda: from_arrays((X.astype(object), Y)), "x of arrays must be an array of numbers, got Python objects"),
    (lambda: from_arrays((X, Y.astype(object))), "y of arrays must be an array of numbers, got Python objects"),
    (lambda: from_arrays(([[1.0], [1.0, 2.0]], [0, 1])), r"x of arrays must be one array \("),
    (lambda: from_arrays((X + 1j, Y)), "must be numbers, got complex128"),
    (lambda: from_arrays((X, Y + 1j)), "must be classes or values, got complex128"),
    (lambda: from_arrays((1.0, Y)), "must have the examples on its first axis"),
    (lambda: from_arrays(({}, Y)), "must hold an array, got none"),
    (lambda: from_arrays((2**40 + Y, Y)), "must be integers of 32 bits, got up to 1099511627779"),
    (lambda: from_arrays((1e39 * X, Y)), r"x must be below 3\.4e\+38 to be float32, got .*e\+39; scale it"),
    (lambda: from_arrays((X, np.stack([Y, Y - 1], 1))), "numbered from 0, got -1 at example 0 of arrays"),
    (lambda: from_arrays((X, np.stack([Y, Y], 1).astype(str))), "by position must be integers, got text"),
    (
        lambda: from_arrays((X, np.arange(N))),
        r"at least 3 examples, one for each of training, validation and test, got",
    ),
    (lambda: from_arrays((X, np.arange(N))), r"fewer of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 30 more; drop or merge"),
    (lambda: from_arrays((X[:4], X[:4])), "The 4 examples are too few to hold out 0.2 of them for test and validation"),
    (lambda: from_arrays(X), r"arrays must be a pair \(x, y\), got ndarray"),
    (lambda: from_arrays((X, Y), held_out=1.0), "`held_out` must be a share"),
    (lambda: from_arrays((X, Y), seed=-1), "`seed` must be a whole number"),
    (lambda: from_arrays((X, Y), dtype=np.float16), "`dtype` must be float32 or float64, got float16"),
]


@pytest.mark.parametrize(("make", "message"), REFUSALS)
def test_refusals_say_where_and_what_to_do(make, message):
    with pytest.raises(DatasetError, match=message) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_arrays_have_an_identity():
    one = from_arrays((X, Y))
    assert isinstance(one, Dataset)
    assert identity(one) == identity(from_arrays((X.copy(), Y)))
    others = [from_arrays((X, Y), seed=1), from_arrays((with_value(X, (0, 0), 9), Y)), from_arrays(((X,), Y))]
    assert len({identity(data)["sha256"] for data in (one, *others)}) == 4
