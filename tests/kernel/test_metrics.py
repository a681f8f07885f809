"""Metrics of kernels against hand-computed cases, dense NumPy matrices and their invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relin.kernel import by_module
from relin.kernel._metrics import (
    cka,
    distance,
    effective_rank,
    energy_alignment,
    relative_change,
    target_alignment,
    velocity,
)

N, C = 6, 3
LABELS = jnp.asarray([0, 2, 1, 1, 0, 2])
SHAPES = ("full", "diagonal", "mean")


def features(seed, n=N, p=40):
    return np.random.default_rng(seed).normal(size=(n, C, p)) + 0.3


def kernel(shape, seed=0, phi=None):
    phi = features(seed) if phi is None else phi
    full = np.einsum("icp,jdp->ijcd", phi, phi)
    blocks = np.einsum("ijcc->ijc", full)
    return jnp.asarray({"full": full, "diagonal": blocks, "mean": blocks.mean(-1)}[shape])


def block_diagonal(blocks):
    size = len(blocks[0])
    whole = np.zeros((size * len(blocks),) * 2)
    for c, block in enumerate(blocks):
        whole[c * size : (c + 1) * size, c * size : (c + 1) * size] = block
    return whole


def matrix(k):
    """The matrix that a kernel stands for: NC × NC by examples, by outputs (diagonal), or N × N."""
    k = np.asarray(k)
    if k.ndim == 4:
        return k.transpose(0, 2, 1, 3).reshape(k.shape[0] * k.shape[2], -1)
    return block_diagonal(np.moveaxis(k, 2, 0)) if k.ndim == 3 else k


def centring(k):
    n = k.shape[0]
    H = np.eye(n) - 1 / n
    return np.kron(H, np.eye(k.shape[2])) if k.ndim == 4 else np.kron(np.eye(k.shape[2]), H) if k.ndim == 3 else H


def cosine(a, b):
    return np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)


def dense_cka(k, other):
    H = centring(k)
    return cosine(H @ matrix(k) @ H, H @ other @ H)


def target_matrix(k, y):
    """yyᵀ as the kernel's shape says."""
    if k.ndim == 4:
        return np.outer(y.reshape(-1), y.reshape(-1))
    return block_diagonal([np.outer(c, c) for c in y.T]) if k.ndim == 3 else y @ y.T


def targets(seed=5):
    return np.random.default_rng(seed).normal(size=(N, C)) + 0.5


def test_hand_computed_two_by_two():
    identity, ones, diagonal = jnp.eye(2), jnp.ones((2, 2)), jnp.asarray([[3.0, 0.0], [0.0, 4.0]])
    assert distance(identity, ones) == pytest.approx(1 - 2 / (np.sqrt(2) * 2))
    assert velocity(identity, ones, 4) == pytest.approx((1 - 1 / np.sqrt(2)) / 4)
    assert relative_change(diagonal, identity) == pytest.approx(np.sqrt(4 + 9) / np.sqrt(2))
    assert cka(identity, diagonal) == pytest.approx(1.0)  # both centre to a multiple of [[1, −1], [−1, 1]]
    assert energy_alignment(diagonal, jnp.asarray([[1.0], [2.0]])) == pytest.approx((3 + 16) / 5)
    p = np.asarray([3 / 7, 4 / 7])
    assert effective_rank(diagonal) == pytest.approx(np.exp(-np.sum(p * np.log(p))))


def test_hand_computed_three_by_three():
    """Labels 0, 0, 1: the centred one-hot columns are ±(1, 1, −2)/3, and I centres to H with ‖H‖ = √2."""
    k, labels = jnp.eye(3), jnp.asarray([0, 0, 1])
    assert target_alignment(k, labels) == pytest.approx(1 / np.sqrt(2))
    np.testing.assert_allclose(target_alignment(k, labels, num_classes=2, per_class=True), np.ones(2) / np.sqrt(2))
    assert energy_alignment(k, labels) == pytest.approx(1.0)
    ordered = jnp.asarray([[2.0, 2.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    assert energy_alignment(ordered, labels) == pytest.approx((8 + 1) / 3)
    assert target_alignment(ordered, labels) == pytest.approx(1.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_against_dense_matrices(shape):
    k1, k2, y = kernel(shape, 0), kernel(shape, 1), targets()
    m1, m2, vector = matrix(k1), matrix(k2), y.reshape(-1)
    np.testing.assert_allclose(distance(k1, k2), 1 - cosine(m1, m2), rtol=1e-12)
    np.testing.assert_allclose(velocity(k1, k2, 5), (1 - cosine(m1, m2)) / 5, rtol=1e-12)
    np.testing.assert_allclose(relative_change(k1, k2), np.linalg.norm(m1 - m2) / np.linalg.norm(m2), rtol=1e-12)
    np.testing.assert_allclose(cka(k1, k2), dense_cka(k1, m2), rtol=1e-12)
    np.testing.assert_allclose(target_alignment(k1, y), dense_cka(k1, target_matrix(k1, y)), rtol=1e-12)
    columns = {"full": vector, "diagonal": y.T.reshape(-1), "mean": y}[shape]
    energy = np.sum(columns * (m1 @ columns)) / np.sum(y**2)
    np.testing.assert_allclose(energy_alignment(k1, jnp.asarray(y)), energy, rtol=1e-12)
    p = np.linalg.eigvalsh(m1).clip(1e-300) / np.trace(m1)
    np.testing.assert_allclose(effective_rank(k1), np.exp(-np.sum(p * np.log(p))), rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_classes_stand_for_one_hot_vectors(shape):
    k, one_hot = kernel(shape), np.eye(C)[LABELS]
    for given in ({}, {"num_classes": C}):
        np.testing.assert_allclose(target_alignment(k, LABELS, **given), target_alignment(k, one_hot), rtol=1e-12)
        np.testing.assert_allclose(energy_alignment(k, LABELS, **given), energy_alignment(k, one_hot), rtol=1e-12)
    blocks = np.asarray(kernel("diagonal")) if shape != "mean" else np.repeat(np.asarray(k)[..., None], C, 2)
    expected = [dense_cka(blocks[..., c], np.outer(one_hot[:, c], one_hot[:, c])) for c in range(C)]
    per_class = target_alignment(k, LABELS, num_classes=C, per_class=True)
    np.testing.assert_allclose(per_class, expected, rtol=1e-12)
    np.testing.assert_allclose(target_alignment(k, one_hot, per_class=True), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_invariant_to_scale(shape):
    k1, k2 = kernel(shape, 0), kernel(shape, 1)
    for factor in (3.0, 1e-200, 1e200):  # the squares of the last two are not numbers
        np.testing.assert_allclose(distance(factor * k1, k2), distance(k1, k2), rtol=1e-10)
        np.testing.assert_allclose(cka(factor * k1, k2), cka(k1, k2), rtol=1e-10)
        np.testing.assert_allclose(target_alignment(factor * k1, LABELS), target_alignment(k1, LABELS), rtol=1e-10)
        np.testing.assert_allclose(effective_rank(factor * k1), effective_rank(k1), rtol=1e-10)
        np.testing.assert_allclose(relative_change(factor * k1, factor * k2), relative_change(k1, k2), rtol=1e-10)
        np.testing.assert_allclose(energy_alignment(factor * k1, LABELS), factor * energy_alignment(k1, LABELS))
    np.testing.assert_allclose(energy_alignment(k1, -4 * targets()), energy_alignment(k1, targets()), rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_invariant_to_permutation_of_examples(shape):
    order = np.asarray([4, 2, 0, 5, 1, 3])
    k1, k2 = kernel(shape, 0), kernel(shape, 1)
    p1, p2 = k1[order][:, order], k2[order][:, order]
    for metric in (distance, relative_change, cka):
        np.testing.assert_allclose(metric(p1, p2), metric(k1, k2), rtol=1e-12)
    for metric in (target_alignment, energy_alignment):
        np.testing.assert_allclose(metric(p1, LABELS[order]), metric(k1, LABELS), rtol=1e-12)
    np.testing.assert_allclose(effective_rank(p1), effective_rank(k1), rtol=1e-12)
    assert abs(float(target_alignment(p1, LABELS) - target_alignment(k1, LABELS))) > 1e-3


@pytest.mark.parametrize("shape", ["full", "mean"])
def test_invariant_to_rotation_of_outputs(shape):
    """As θ ↦ f R with an orthogonal R; a diagonal kernel depends on the basis of the outputs."""
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(C, C)))[0]
    first, second = features(0), features(1)
    k1, k2 = kernel(shape, phi=first), kernel(shape, phi=second)
    r1, r2 = (kernel(shape, phi=np.einsum("cd,idp->icp", rotation, phi)) for phi in (first, second))
    y, rotated = targets(), targets() @ rotation.T
    for metric in (distance, relative_change, cka):
        np.testing.assert_allclose(metric(r1, r2), metric(k1, k2), rtol=1e-10)
    for metric in (target_alignment, energy_alignment):
        np.testing.assert_allclose(metric(r1, rotated), metric(k1, y), rtol=1e-10)
    np.testing.assert_allclose(effective_rank(r1), effective_rank(k1), rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_alignment_ignores_what_is_common_to_all_examples(shape):
    """K + b1ᵀ + 1bᵀ + c, as features or targets shifted by a constant give."""
    k1, k2 = kernel(shape, 0), kernel(shape, 1)
    shifted = kernel(shape, phi=features(0) + np.random.default_rng(8).normal(size=(1, C, 40)))
    np.testing.assert_allclose(cka(shifted, k2), cka(k1, k2), rtol=1e-10)
    np.testing.assert_allclose(cka(k1, shifted), 1.0, rtol=1e-12)
    np.testing.assert_allclose(target_alignment(k1, targets() + 7.0), target_alignment(k1, targets()), rtol=1e-10)
    assert distance(k1, shifted) > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_distance_to_itself_and_to_multiples_is_zero(shape):
    k = kernel(shape)
    assert distance(k, k) == 0
    assert jax.jit(distance)(k, jnp.array(k)) == 0
    assert distance(k, 2 * k) < 1e-30
    assert distance(k, 3 * k) < 1e-30
    assert relative_change(k, k) == 0
    assert cka(k, 3 * k) == pytest.approx(1.0, abs=1e-14)


def test_small_distances_keep_their_digits():
    """In single precision 1 − cosine would give rounding errors of 1e-7 only."""
    k, change = kernel("full"), kernel("full", 1)
    moved = jnp.asarray(k + 1e-5 * change)
    expected = 0.5e-10 * (np.sum(np.square(change)) / np.sum(np.square(k))) * (1 - cosine(k, change) ** 2)
    np.testing.assert_allclose(distance(k, moved), expected, rtol=1e-4)
    small = distance(jnp.asarray(k, jnp.float32), jnp.asarray(moved, jnp.float32))
    assert small.dtype == jnp.float32
    np.testing.assert_allclose(small, expected, rtol=0.02)


def test_effective_rank_counts_equal_eigenvalues():
    assert effective_rank(jnp.eye(7)) == pytest.approx(7)
    full = jnp.einsum("ij,cd->ijcd", jnp.eye(4), jnp.eye(3))
    assert effective_rank(full) == pytest.approx(12)
    assert effective_rank(jnp.einsum("ij,c->ijc", jnp.eye(4), jnp.ones(3))) == pytest.approx(12)
    assert effective_rank(jnp.ones((5, 5))) == pytest.approx(1)


def test_degenerate_kernels_and_targets():
    zero, k = jnp.zeros((3, 3)), jnp.eye(3)
    constant = jnp.full((3, 3), 0.1)  # three times 0.1 is not 0.3: a mean would leave rounding errors
    labels, same = jnp.asarray([0, 1, 1]), jnp.asarray([1, 1, 1])
    for undefined in (
        distance(zero, k),
        distance(k, zero),
        relative_change(k, zero),
        cka(k, constant),
        cka(zero, k),
        target_alignment(constant, labels),
        target_alignment(k, same),
        target_alignment(k, jnp.full((3, 2), 0.1)),
        energy_alignment(k, jnp.zeros((3, 2))),
    ):
        assert jnp.isnan(undefined)
    assert relative_change(zero, k) == 1
    assert energy_alignment(zero, labels) == 0
    assert effective_rank(zero) == 0
    assert jnp.isnan(effective_rank(jnp.full((2, 2), jnp.nan)))
    alignments = target_alignment(jnp.eye(4), jnp.asarray([0, 2, 2, 0]), num_classes=3, per_class=True)
    assert jnp.isnan(alignments).tolist() == [False, True, False]


def test_low_precision_is_raised_to_single():
    k = kernel("mean").astype(jnp.bfloat16)
    for value in (
        distance(k, k),
        cka(k, k),
        target_alignment(k, LABELS),
        effective_rank(k),
        energy_alignment(k, LABELS),
    ):
        assert value.dtype == jnp.float32


def test_dicts_of_kernels_give_dicts_of_values():
    now = {".w": kernel("full", 0), ".b": kernel("full", 1)}
    first = {".b": kernel("full", 2), ".w": kernel("full", 3)}
    for metric in (distance, relative_change, cka):
        values = metric(now, first)
        assert list(values) == [".w", ".b"]
        for path, value in values.items():
            np.testing.assert_array_equal(value, metric(now[path], first[path]))
    for metric in (target_alignment, energy_alignment):
        assert metric(now, LABELS)[".b"] == metric(now[".b"], LABELS)
    assert velocity(now, first, 2)[".w"] == distance(now[".w"], first[".w"]) / 2
    assert effective_rank(now)[".w"] == effective_rank(now[".w"])


def test_by_module_adds_parts_up():
    paths = (
        ".layers[0].weight",
        ".layers[0].bias",
        ".layers[1].weight",
        "['head.x[1]']['w']",
        "['head.x[1]']['b']",
        ".scale",
    )
    parts = {path: kernel("mean", seed) for seed, path in enumerate(paths)}
    k = list(parts.values())
    by_default = by_module(parts)
    assert list(by_default) == [".layers[0]", ".layers[1]", "['head.x[1]']", ".scale"]
    np.testing.assert_allclose(by_default[".layers[0]"], k[0] + k[1])
    np.testing.assert_allclose(by_default["['head.x[1]']"], k[3] + k[4])
    top = by_module(parts, depth=1)
    assert list(top) == [".layers", "['head.x[1]']", ".scale"]
    np.testing.assert_allclose(top[".layers"], k[0] + k[1] + k[2])
    assert list(by_module(parts, depth=9)) == list(parts)
    np.testing.assert_allclose(sum(by_module(parts, depth=2).values()), sum(k))


def test_by_module_reads_the_paths_jax_makes():
    tree = {"a": [1.0, {"b/c": 2.0}], 7: (3.0,)}
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path({"root": tree["a"]})]
    assert list(by_module({path: jnp.eye(2) for path in paths})) == ["['root']", "['root'][1]"]


def test_metrics_are_traceable_and_differentiable():
    k1, k2 = kernel("full", 0), kernel("full", 1)

    @jax.jit
    def all_of_them(k1, k2, y, steps):
        mean = jnp.mean(jnp.diagonal(k1, axis1=2, axis2=3), -1)
        alignments = target_alignment(mean, y), target_alignment(k1, y, per_class=True)
        return velocity(k1, k2, steps), relative_change(k1, k2), cka(k1, k2), alignments, effective_rank(k1)

    values = all_of_them(k1, k2, LABELS, 3)
    np.testing.assert_allclose(values[0], distance(k1, k2) / 3)
    np.testing.assert_allclose(values[3][0], target_alignment(kernel("mean"), LABELS))
    np.testing.assert_allclose(values[4], effective_rank(k1))
    step = 1e-6
    slope = (distance(k1 + step * k2, k2) - distance(k1 - step * k2, k2)) / (2 * step)
    np.testing.assert_allclose(jnp.sum(jax.grad(distance)(k1, k2) * k2), slope, rtol=1e-6)


K2, K3, K4 = jnp.eye(4), jnp.ones((4, 4, 2)), jnp.ones((4, 4, 2, 2))
REFUSALS = [
    (lambda: distance(jnp.ones(3), jnp.ones(3)), r"kernel must have shape .* got \(3,\)"),
    (lambda: effective_rank(jnp.ones((4, 4, 2, 3))), r"kernel must have shape .* got \(4, 4, 2, 3\)"),
    (lambda: distance(K2, K3), r"one shape, got \(4, 4\) and \(4, 4, 2\)"),
    (lambda: cka(jnp.ones((4, 5)), jnp.ones((4, 5))), r"one probe set with itself.* got \(4, 5\)"),
    (lambda: effective_rank(jnp.ones((4, 5))), r"one probe set with itself"),
    (lambda: velocity(K2, K2, 0), r"`steps` must be above 0, got 0"),
    (lambda: distance({"a": K2}, {"b": K2}), r"same paths, got \['a'\] and \['b'\]"),
    (lambda: cka({"a": K2}, K2), r"dicts with the same paths, got \['a'\] and None"),
    (lambda: target_alignment(K4, jnp.zeros(3, int)), r"`y` must have shape \(4,\) .* got \(3,\)"),
    (lambda: target_alignment(K4, jnp.zeros((4, 3))), r"`y` must have shape \(4, 2\), got \(4, 3\)"),
    (lambda: energy_alignment(K2, jnp.zeros(4)), r"must be integer classes, got float64; reshape it to \(4, 1\)"),
    (lambda: target_alignment(K3, jnp.arange(4)), r"classes from 0 to 1, got classes from 0 to 3"),
    (lambda: target_alignment(K2, jnp.arange(4), per_class=True), r"number of classes .* pass `num_classes`"),
    (lambda: target_alignment(K3, jnp.arange(4), num_classes=4), r"number of outputs 2, got 4; leave it out"),
    (lambda: by_module({"['a']": K2}, depth=0), r"`depth` must be at least 1, got 0"),
    (lambda: by_module({"['a'][0]": K2, "['a'][1]": K3}), r"kernels of \['a'\] must have one shape"),
]


@pytest.mark.parametrize(("call", "message"), REFUSALS)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
