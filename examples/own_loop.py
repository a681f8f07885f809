"""Your own Optax loop, made iterative-linearised by two changed lines.

Trains a small network on scikit-learn's handwritten digits twice with the same loop, batches and initial parameters:
ordinarily, and with the features updated only every K = 64 steps.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import relin as il

STEPS, BATCH = 600, 64


def network(params, x):
    hidden = jnp.tanh(x @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


def initial_params(seed, width=128):
    first, second = jax.random.split(jax.random.key(seed))
    return {
        "w1": jax.random.normal(first, (64, width)) / 8,
        "b1": jnp.zeros(width),
        "w2": jax.random.normal(second, (width, 10)) / jnp.sqrt(width),
        "b2": jnp.zeros(10),
    }


def digits():
    x, y = load_digits(return_X_y=True)
    parts = train_test_split(x.astype(np.float32) / 16, y, test_size=0.25, random_state=0)
    return tuple(jnp.asarray(part) for part in parts)


def train(params, x, y, period):
    """A plain Optax loop over the parameters, kept as a start and what was added to it: θ = params + delta.

    Optax adds its updates to `delta` alone, so that a small step is never rounded away by a large parameter.
    """
    optimiser = optax.adam(1e-3)
    delta = jax.tree.map(jnp.zeros_like, params)
    state = optimiser.init(params)

    @jax.jit
    def step(params, delta, state, x, y):
        def loss(delta):
            # before: outputs = network(optax.apply_updates(params, delta), x)
            outputs = il.Linearisation(network, params).value(delta, x)
            return optax.losses.softmax_cross_entropy_with_integer_labels(outputs, y).mean()

        updates, state = optimiser.update(jax.grad(loss)(delta), state)
        return optax.apply_updates(delta, updates), state

    random = np.random.default_rng(0)
    for t in range(STEPS):
        batch = random.integers(0, len(x), BATCH)
        # before: nothing; for the plain network it makes no difference which part of θ is in which of the two
        if t % period == 0:
            params, delta = il.Linearisation(network, params).moved(delta).anchor, jax.tree.map(jnp.zeros_like, delta)
        delta, state = step(params, delta, state, x[batch], y[batch])
    return il.Linearisation(network, params), delta


def main():
    x_train, x_test, y_train, y_test = digits()
    for name, period in (("ordinary training (K = 1)", 1), ("features updated every 64 steps", 64)):
        linearised, delta = train(initial_params(0), x_train, y_train, period)
        accuracy = jnp.mean(jnp.argmax(linearised.value(delta, x_test), axis=1) == y_test)
        print(f"{name}: test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
