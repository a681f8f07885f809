"""A Flax NNX network: trained by relin, and in NNX's own loop with two added lines."""

import jax
import jax.numpy as jnp
import optax
from _digits import batches, digits
from flax import nnx

import relin as il
import relin.nnx

STEPS, K = 600, 64


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(64, 128, rngs=rngs)
        self.readout = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x):
        return self.readout(jnp.tanh(self.hidden(x)))


def by_relin(model, x, y):
    """`il.train`, with the result back in the module."""
    apply, params = il.from_nnx(model)
    problem = il.Problem(apply, il.CrossEntropy())
    solution = il.train(
        problem,
        il.WeightSpace(optax.adam(1e-3)),
        il.Every(K),
        params,
        (x, y),
        num_steps=STEPS,
        batch_size=64,
        key=jax.random.key(0),
    )
    nnx.update(model, solution.params)
    return model


def by_own_loop(model, x, y):
    """NNX's loop."""
    model = relin.nnx.Linearised(model, il.Every(K))  # before: nothing
    optimiser = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)

    def loss(model, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    @nnx.jit
    def step(model, optimiser, x, y):
        optimiser.update(model, nnx.grad(loss)(model, x, y))
        model.step()  # before: nothing

    for _, inputs, classes in batches(x, y, STEPS):
        step(model, optimiser, inputs, classes)
    return model.merged()


def main():
    x_train, x_test, y_train, y_test = digits()
    for name, train in (("il.train", by_relin), ("NNX's own loop", by_own_loop)):
        model = train(Network(nnx.Rngs(0)), x_train, y_train)
        accuracy = jnp.mean(jnp.argmax(model(x_test), axis=1) == y_test)
        print(f"{name}, features updated every {K} steps: test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
