"""The empirical NTK from explicit Jacobians, example by example, written apart from `relin.kernel`."""

import jax
import jax.numpy as jnp
import numpy as np


def dense_parts(apply, params, x1, x2=None):
    """{path: Θ of one tensor}, shapes (N1, N2, C, C)."""

    def jacobians(x):
        one = jax.jit(lambda p, x: jax.jacrev(lambda p: apply(p, jax.tree.map(lambda a: a[None], x))[0])(p))
        examples = [jax.tree.map(lambda a, i=i: a[i], x) for i in range(jax.tree.leaves(x)[0].shape[0])]
        rows = [jax.tree_util.tree_leaves_with_path(one(params, example)) for example in examples]
        return {
            jax.tree_util.keystr(row[0][0]): np.stack([np.asarray(leaf).reshape(leaf.shape[0], -1) for _, leaf in row])
            for row in zip(*rows, strict=True)
        }

    first = jacobians(x1)
    second = first if x2 is None else jacobians(x2)
    return {path: np.einsum("ncp,mdp->nmcd", first[path], second[path]) for path in first}


def dense(apply, params, x1, x2=None):
    return sum(dense_parts(apply, params, x1, x2).values())


def select(full, outputs):
    """The kernel of a kind from the full one."""
    if outputs == "full":
        return full
    if outputs == "mean":
        return np.trace(full, axis1=2, axis2=3) / full.shape[2]
    diagonal = np.diagonal(full, axis1=2, axis2=3)
    return diagonal if outputs == "diagonal" else diagonal[:, :, outputs]


def assert_close(value, expected, tolerance=1e-10):
    """Equal relative to the largest entry."""
    value, expected = np.asarray(value), np.asarray(expected)
    assert value.shape == expected.shape
    assert np.max(np.abs(value - expected)) <= tolerance * max(np.max(np.abs(expected)), 1e-30)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))
