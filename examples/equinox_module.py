"""An Equinox network: trained by relin, and in a loop around `eqx.filter_grad` with two changed lines."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from _digits import batches, digits

import relin as il

STEPS, K = 600, 64


def by_relin(module, x, y):
    """`il.train`; the result as a module."""
    apply, params = il.from_equinox(module)
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
    return apply.combine(solution.params)


def by_own_loop(module, x, y):
    """An Equinox loop on a module that holds the displacement δ from the anchor; θ = anchor + δ."""
    apply, anchor = il.from_equinox(module)
    zero = jax.tree.map(jnp.zeros_like, anchor)
    optimiser = optax.adam(1e-3)
    delta, state = zero, optimiser.init(zero)

    @eqx.filter_jit
    def step(delta, state, anchor, x, y):
        @eqx.filter_grad
        def gradient(delta):
            # before: logits = jax.vmap(module)(x)
            logits = il.Linearisation(apply, anchor).value(delta, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, state = optimiser.update(gradient(delta), state)
        return eqx.apply_updates(delta, updates), state

    for t, inputs, classes in batches(x, y, STEPS):
        if t % K == 0:  # before: nothing
            anchor, delta = eqx.apply_updates(anchor, delta), zero
        delta, state = step(delta, state, anchor, inputs, classes)
    return apply.combine(eqx.apply_updates(anchor, delta))


def main():
    x_train, x_test, y_train, y_test = digits()
    for name, train in (("il.train", by_relin), ("An Equinox loop", by_own_loop)):
        module = eqx.nn.MLP(64, 10, 128, depth=1, activation=jnp.tanh, key=jax.random.key(0))
        module = train(module, x_train, y_train)
        accuracy = jnp.mean(jnp.argmax(jax.vmap(module)(x_test), axis=1) == y_test)
        print(f"{name}, features updated every {K} steps: test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
