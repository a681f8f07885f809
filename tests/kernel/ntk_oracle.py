"""The empirical NTK from explicit Jacobians, example by example, written apart from `relin.kernel`."""

import jax
import jax.numpy as jnp
import numpy as np


def dense_parts(apply, params, x1, x2=None):
    """{path: Θ of one tensor}, shapes (N1, N2, C, C)."""

    def jacobians(x):
        one = jax.jit(lambda p, x: jacobian(lambda p: apply(p, jax.tree.map(lambda a: a[None], x)), p))
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


def jacobian(function, params):
    """A PyTree like `params` with a leading axis of all outputs: a pass for each output, none together under `vmap`,
    which XLA gets wrong for some convolutions on a CPU (docs/known-problems.md)."""
    outputs, pull = jax.vjp(lambda p: function(p).reshape(-1), params)
    return jax.lax.map(lambda e: pull(e)[0], jnp.eye(outputs.size, dtype=outputs.dtype))


def rows(function, params):
    """The same as one matrix."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.jit(lambda p: jacobian(function, p))(params))]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], 1)


def batch_kernel(apply, params, x1, x2=None):
    """J(x1) J(x2)ᵀ of both sides as one batch, `(N1, N2, C, C)`."""
    first = rows(lambda p: apply(p, x1), params)
    second = first if x2 is None else rows(lambda p: apply(p, x2), params)
    n1, n2 = (jax.tree.leaves(x)[0].shape[0] for x in (x1, x1 if x2 is None else x2))
    return (first @ second.T).reshape(n1, len(first) // n1, n2, -1).transpose(0, 2, 1, 3)


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
