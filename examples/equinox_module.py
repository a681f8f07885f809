"""An Equinox network: trained by relin, and in a loop around `eqx.filter_grad` with two changed lines."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from _digits import batches, digits

import relin as il
import relin.equinox

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
    """An Equinox loop."""
    model = relin.equinox.Linearised(module, il.Every(K))  # before: model = module
    optimiser = optax.adam(1e-3)
    state = optimiser.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state, x, y):
        @eqx.filter_grad
        def gradient(model):
            return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x), y).mean()

        updates, state = optimiser.update(gradient(model), state)
        return eqx.apply_updates(model, updates).step(), state  # before: without .step()

    for _, inputs, classes in batches(x, y, STEPS):
        model, state = step(model, state, inputs, classes)
    return model.merged()


def main():
    x_train, x_test, y_train, y_test = digits()
    for name, train in (("il.train", by_relin), ("An Equinox loop", by_own_loop)):
        module = eqx.nn.MLP(64, 10, 128, depth=1, activation=jnp.tanh, key=jax.random.key(0))
        module = train(module, x_train, y_train)
        accuracy = jnp.mean(jnp.argmax(jax.vmap(module)(x_test), axis=1) == y_test)
        print(f"{name}, features updated every {K} steps: test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
