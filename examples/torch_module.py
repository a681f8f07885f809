"""A PyTorch network with BatchNorm and dropout: trained by relin, and in an Optax loop with two changed lines."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from _digits import batches, digits
from torch import nn

import relin as il

STEPS, K = 600, 64


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.Tanh(), nn.Dropout(0.1), nn.Linear(128, 10))


def by_relin(module, x, y):
    """`il.train` with batch statistics and dropout on; the result, running statistics too, back in the module."""
    apply, params = il.from_torch(module, statistics="batch", dropout=True, key=jax.random.key(1))
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
    module.load_state_dict(apply.with_variables(solution.variables).state_dict(solution.params))
    return module


def by_own_loop(module, x, y):
    """An Optax loop on the module as a JAX function, with its running statistics frozen; θ = anchor + δ."""
    apply, anchor = il.from_torch(module, statistics="frozen")
    zero = jax.tree.map(jnp.zeros_like, anchor)
    optimiser = optax.adam(1e-3)
    delta, state = zero, optimiser.init(zero)

    @jax.jit
    def step(delta, state, anchor, x, y):
        @jax.grad
        def gradient(delta):
            # before: logits = apply(params, x)
            logits = il.Linearisation(apply, anchor).value(delta, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, state = optimiser.update(gradient(delta), state)
        return optax.apply_updates(delta, updates), state

    for t, inputs, classes in batches(x, y, STEPS):
        if t % K == 0:  # before: nothing
            anchor, delta = optax.apply_updates(anchor, delta), zero
        delta, state = step(delta, state, anchor, inputs, classes)
    module.load_state_dict(apply.state_dict(optax.apply_updates(anchor, delta)))
    return module


def main():
    x_train, x_test, y_train, y_test = digits()
    for name, train in (("il.train", by_relin), ("An Optax loop", by_own_loop)):
        module = train(network(), x_train, y_train).eval()
        with torch.no_grad():
            classes = module(torch.from_numpy(x_test)).argmax(1).numpy()
        print(f"{name}, features updated every {K} steps: test accuracy {np.mean(classes == y_test):.3f}")


if __name__ == "__main__":
    main()
