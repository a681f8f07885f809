"""A Flax Linen network: trained by relin, and in a `TrainState` loop with one added line."""

import jax
import jax.numpy as jnp
import optax
from _digits import batches, digits
from flax import linen as nn
from flax.training.train_state import TrainState

import relin as il
import relin.linen

STEPS, K = 600, 64


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(jnp.tanh(nn.Dense(128)(x)))


def by_relin(module, variables, x, y):
    """`il.train`; the result as `module.apply` takes it."""
    apply, params = il.from_linen(module, variables)
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


def by_own_loop(module, variables, x, y):
    """A `TrainState` loop."""
    state = TrainState.create(apply_fn=module.apply, params=variables["params"], tx=optax.adam(1e-3))
    state = relin.linen.linearised(state, il.Every(K))  # before: nothing

    @jax.jit
    def step(state, x, y):
        def loss(params):
            logits = state.apply_fn({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    for _, inputs, classes in batches(x, y, STEPS):
        state = step(state, inputs, classes)
    return {"params": state.params}


def main():
    x_train, x_test, y_train, y_test = digits()
    module = Network()
    for name, train in (("il.train", by_relin), ("A TrainState loop", by_own_loop)):
        variables = train(module, module.init(jax.random.key(0), x_train[:1]), x_train, y_train)
        accuracy = jnp.mean(jnp.argmax(module.apply(variables, x_test), axis=1) == y_test)
        print(f"{name}, features updated every {K} steps: test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
