"""Losses and targets of one's own, and dense float64 algebra of their problems on flattened outputs."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax

import relin as il

KEY = jax.random.key(3)
RANDOM = np.random.default_rng(5)
N, LENGTH, VOCABULARY = 8, 3, 4
VOID = -100


def log_softmax(f):
    return f - jax.scipy.special.logsumexp(f, axis=-1, keepdims=True)


def at_labels(values, labels):
    return jnp.take_along_axis(values, jnp.maximum(labels, 0)[..., None], -1)[..., 0]


class Ignoring(il.AbstractLoss):
    """Weighted cross-entropy over the positions that have a label."""

    def __call__(self, outputs, targets):
        labels, weights = targets["labels"], targets["weights"]
        kept, axes = labels != VOID, tuple(range(1, labels.ndim))
        losses = jnp.where(kept, -at_labels(log_softmax(outputs), labels), 0)
        return weights * losses.sum(axes) / jnp.maximum(kept.sum(axes), 1)

    def correct(self, outputs, targets):
        kept = targets["labels"] != VOID
        axes = tuple(range(1, kept.ndim))
        right = kept & (outputs.argmax(-1) == targets["labels"])
        return right.sum(axes) / jnp.maximum(kept.sum(axes), 1)

    def check_targets(self, outputs, targets):
        labels = targets["labels"]
        allowed = (labels == VOID) | (labels >= 0) & (labels < outputs.shape[-1])
        return il.TargetCheck(labels, allowed, f"classes from 0 to {outputs.shape[-1] - 1}, or {VOID} to ignore")


class Survival(il.AbstractLoss):
    """Exponential lifetimes, some of which are censored: targets are a tuple (died, time)."""

    def __call__(self, outputs, targets):
        died, time = targets
        return jnp.exp(outputs[:, 0]) * time - died * outputs[:, 0]

    def correct(self, outputs, targets):
        return None


class ClassWeights(il.AbstractLoss):
    weights: jax.Array | np.ndarray

    def __call__(self, outputs, targets):
        residual = outputs - jax.nn.one_hot(targets, outputs.shape[-1], dtype=outputs.dtype)
        return 0.5 * jnp.asarray(self.weights)[targets] * jnp.sum(residual**2, -1)

    def correct(self, outputs, targets):
        return outputs.argmax(-1) == targets


def tokens(params, x):
    return jnp.tanh(params["e"][x]) @ params["r"]


def images(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def line(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def some_void(labels):
    labels = np.array(labels)
    labels[0, 1:] = VOID
    labels[2] = VOID
    return labels


IDS = RANDOM.integers(0, VOCABULARY, (N, LENGTH))
VALUES = RANDOM.normal(size=(N, 4))
WEIGHTS = np.linspace(0.2, 2, N)
CASES = {
    "tokens": (
        tokens,
        {"e": RANDOM.normal(size=(VOCABULARY, 3)), "r": RANDOM.normal(size=(3, VOCABULARY))},
        Ignoring(),
        (IDS, {"labels": some_void(np.roll(IDS, 1, 1)), "weights": WEIGHTS}),
    ),
    "segmentation": (
        images,
        {"w": RANDOM.normal(size=(2, 3)), "v": RANDOM.normal(size=(3, 3))},
        Ignoring(),
        (
            RANDOM.normal(size=(N, 2, 2, 2)),
            {"labels": some_void(RANDOM.integers(0, 3, (N, 2, 2))), "weights": np.ones(N)},
        ),
    ),
    "survival": (
        line,
        {"w": RANDOM.normal(size=(4, 3)), "v": RANDOM.normal(size=(3, 1))},
        Survival(),
        (VALUES, (RANDOM.integers(0, 2, N).astype(float), RANDOM.uniform(0.5, 2, N))),
    ),
}


class Dense:
    """The linearised problem of a case, with J and H as matrices."""

    def __init__(self, name):
        apply, params, loss, (x, y) = CASES[name]
        self.theta, self.unravel = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.asarray, params))
        y = jax.tree.map(jnp.asarray, y)
        shape = apply(params, x).shape
        self.network = lambda theta: apply(self.unravel(theta), jnp.asarray(x)).reshape(-1)
        self.outputs, self.jacobian = self.network(self.theta), jax.jacfwd(self.network)(self.theta)
        self.mean = lambda f: jnp.mean(loss(f.reshape(shape), y))
        self.slope, self.curvature = jax.grad(self.mean)(self.outputs), jax.hessian(self.mean)(self.outputs)

    def descended(self, rate, momentum, num_steps):
        displacement, velocity = jnp.zeros_like(self.theta), jnp.zeros_like(self.theta)
        for _ in range(num_steps):
            gradient = self.jacobian.T @ jax.grad(self.mean)(self.outputs + self.jacobian @ displacement)
            velocity = momentum * velocity + gradient
            displacement = displacement - rate * velocity
        return displacement

    def gauss_newton(self, damping):
        matrix = self.jacobian.T @ self.curvature @ self.jacobian + damping * jnp.eye(len(self.theta))
        return -jnp.linalg.solve(matrix, self.jacobian.T @ self.slope)


def trained(name, solver, schedule, num_steps, data=None, **options):
    apply, params, loss, own = CASES[name]
    problem = il.Problem(apply, loss)
    return il.train(problem, solver, schedule, params, data or own, num_steps=num_steps, key=KEY, **options)


def flat(tree):
    return jax.flatten_util.ravel_pytree(tree)[0]


def trained_on_values(loss, data=(VALUES, VALUES[:, :3])):
    problem, solver = il.Problem(lambda p, x: x @ p["w"], loss), il.WeightSpace(optax.sgd(0.1))
    return il.train(problem, solver, il.Every(2), {"w": jnp.zeros((4, 3))}, data, num_steps=4, key=KEY)
