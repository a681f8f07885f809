"""Small problems, and training written out by hand: plain Optax loops and dense Jacobians, nothing of relin's own.

Only the batch indices are read from relin, so that an oracle sees the same examples as the run it judges.
"""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax

import relin as il

KEY = jax.random.key(7)
NUM_EXAMPLES, NUM_INPUTS, NUM_CLASSES, BATCH = 12, 4, 3, 5


def mlp(params, x):
    return jnp.tanh(x @ params["w"] + params["b"][None]) @ params["v"]


def mlp_params(dtype=np.float64):
    random = np.random.default_rng(1)
    return {
        "w": jnp.asarray(random.normal(0, 0.7, (NUM_INPUTS, 6)), dtype),
        "b": jnp.asarray(random.normal(0, 0.1, (6,)), dtype),
        "v": jnp.asarray(random.normal(0, 0.7, (6, NUM_CLASSES)), dtype),
    }


def cnn(params, x):
    x = jax.lax.conv_general_dilated(x, params["k"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jnp.tanh(x).reshape(x.shape[0], -1) @ params["v"]


def cnn_params(dtype=np.float64):
    random = np.random.default_rng(2)
    return {
        "k": jnp.asarray(random.normal(0, 0.5, (3, 3, 1, 2)), dtype),
        "v": jnp.asarray(random.normal(0, 0.3, (32, NUM_CLASSES)), dtype),
    }


def data(loss, dtype=np.float64, images=False):
    """Inputs, and classes for cross-entropy or values for the squared error."""
    random = np.random.default_rng(3)
    shape = (NUM_EXAMPLES, 4, 4, 1) if images else (NUM_EXAMPLES, NUM_INPUTS)
    x = jnp.asarray(random.normal(size=shape), dtype)
    if isinstance(loss, il.CrossEntropy):
        return x, jnp.asarray(random.integers(0, NUM_CLASSES, NUM_EXAMPLES))
    return x, jnp.asarray(random.normal(size=(NUM_EXAMPLES, NUM_CLASSES)), dtype)


def mean_loss(loss, outputs, y):
    """L written out: the mean cross-entropy of integer classes, or ½‖f − y‖² summed over the outputs."""
    if isinstance(loss, il.CrossEntropy):
        return optax.losses.softmax_cross_entropy_with_integer_labels(outputs, y).mean()
    return jnp.mean(0.5 * jnp.sum((outputs - y) ** 2, axis=-1))


@functools.cache
def batch_indices(num_steps, batch_size=BATCH, num_examples=NUM_EXAMPLES, key=KEY):
    """The examples of every step, shape `(num_steps, batch_size)`."""
    batches = il.Shuffled(batch_size)
    plan = batches.plan(jax.random.fold_in(key, 0), num_examples, 0, num_steps)
    return np.stack([np.asarray(batches.indices(plan, step)) for step in range(num_steps)])


def ordinary_step(apply, loss, optimiser):
    """A plain Optax step on (params, optimiser state)."""

    def step(params, state, x, y):
        gradient = jax.grad(lambda p: mean_loss(loss, apply(p, x), y))(params)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return step


def ordinary_loop(apply, loss, optimiser, params, batches):
    """A Python loop of one jitted step."""
    step, state = jax.jit(ordinary_step(apply, loss, optimiser)), optimiser.init(params)
    for x, y in batches:
        params, state = step(params, state, x, y)
    return params


def ordinary_scan(apply, loss, optimiser, params, batches):
    """The same loop as one `lax.scan`, in one compiled program."""
    step = ordinary_step(apply, loss, optimiser)
    xs, ys = (jnp.stack(column) for column in zip(*batches, strict=True))

    @jax.jit
    def run(params):
        def body(carry, batch):
            return step(*carry, *batch), None

        return jax.lax.scan(body, (params, optimiser.init(params)), (xs, ys))[0][0]

    return run(params)


class Dense:
    """f(x; θ) with θ one flat vector, its full Jacobian of shape `(batch, C, P)`, and the linear model they make."""

    def __init__(self, apply, params):
        unravel = jax.flatten_util.ravel_pytree(params)[1]
        self.value = jax.jit(lambda theta, x: apply(unravel(theta), x))
        self.jacobian = jax.jit(jax.jacobian(lambda theta, x: apply(unravel(theta), x)))

    def linearised(self, anchor, displacement, x):
        """f(x; θ_s) + J δ."""
        return self.value(anchor, x) + self.jacobian(anchor, x) @ displacement


@functools.cache
def dense_of(apply):
    return Dense(apply, {mlp: mlp_params, cnn: cnn_params}[apply]())


def dense_gradient(loss, outputs, jacobian, y):
    """Jᵀ ∂L/∂f, with ∂L/∂f in closed form."""
    outputs = np.asarray(outputs)
    if isinstance(loss, il.CrossEntropy):
        exp = np.exp(outputs - outputs.max(1, keepdims=True))
        cotangent = exp / exp.sum(1, keepdims=True) - np.eye(outputs.shape[1])[np.asarray(y)]
    else:
        cotangent = outputs - np.asarray(y)
    return np.einsum("bcp,bc->p", np.asarray(jacobian), cotangent / len(outputs))


def dense_loop(apply, loss, optimiser, params, batches, relinearises, reset=lambda state, fresh: state):
    """Trains the explicit linear model, re-built with a dense J before each step for which `relinearises(step, now)`.

    `now` is `(dense, anchor, displacement, x)` with x the step's inputs; `reset(state, fresh)` makes the optimiser's
    state after a re-linearisation.

    **Returns:** θ_T, θ_s, δ_T as flat vectors and the list of steps that re-linearised.
    """
    dense, anchor = dense_of(apply), flat(params)
    displacement, state, steps = np.zeros_like(anchor), optimiser.init(jnp.asarray(anchor)), []
    for step, (x, y) in enumerate(batches):
        if step > 0 and relinearises(step, (dense, anchor, displacement, x)):
            anchor, displacement = anchor + displacement, np.zeros_like(anchor)
            steps.append(step)
            state = reset(state, optimiser.init(jnp.asarray(anchor)))
        jacobian = dense.jacobian(anchor, x)
        outputs = dense.value(anchor, x) + jacobian @ displacement
        gradient = dense_gradient(loss, outputs, jacobian, y)
        updates, state = optimiser.update(jnp.asarray(gradient), state, jnp.asarray(anchor + displacement))
        displacement = displacement + np.asarray(updates)
    return anchor + displacement, anchor, displacement, steps


def flat(tree):
    return np.asarray(jax.flatten_util.ravel_pytree(tree)[0])


def minibatches(x, y, num_steps):
    return [(x[i], y[i]) for i in batch_indices(num_steps)]


def same_bits(a, b):
    return all(np.array_equal(u, v) for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
