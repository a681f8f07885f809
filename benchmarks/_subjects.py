"""The networks that are measured, with synthetic data of their shape, and loops to measure them in."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import relin as il
from relin._loop.compiled import Programs
from relin._loop.drivers import DeviceDriver, HostDriver
from relin._loop.program import Run, Sampling
from relin._loop.sources import ArraySource

SHAPES = {"mlp": (28, 28, 1), "cnn": (28, 28, 1), "lenet5": (28, 28, 1), "resnet18": (32, 32, 3)}
OPTIMISER = optax.sgd(0.01, momentum=0.9)
EXAMPLES = 2048


def subject(name: str, batch: int, **options: Any) -> tuple[il.Problem, Any, tuple[jax.Array, jax.Array]]:
    """A problem, its initial parameters, and data."""
    apply, params = il.from_equinox(il.models.build(name, SHAPES[name], 10, key=jax.random.key(0), **options))
    x = jax.random.normal(jax.random.key(1), (max(EXAMPLES, batch), *SHAPES[name]))
    y = jax.random.randint(jax.random.key(2), x.shape[:1], 0, 10)
    return il.Problem(apply, il.CrossEntropy()), params, (x, y)


def relin_steps(
    problem: il.Problem,
    params: Any,
    data: Any,
    batch: int,
    schedule: il.AbstractSchedule,
    steps: int,
    host: bool,
    solver: il.AbstractSolver | None = None,
    safeguard: il.AbstractSafeguard | None = None,
    batches: il.AbstractBatches | None = None,
) -> Callable[..., Any]:
    """A function that takes `steps` steps of `train`'s own loop, or as many as it is told, at most `steps`."""
    run = Run(problem, solver or il.WeightSpace(OPTIMISER), schedule, params, jax.random.key(0), safeguard)
    programs = Programs(_as_it_is, run, Sampling(batches or il.Shuffled(batch), None), ())
    driver = HostDriver(programs, ArraySource(programs, data, steps)) if host else DeviceDriver(programs, data, steps)
    state, _ = driver.start()
    return lambda count=steps: driver.run(state, 0, count)


def _as_it_is(run: Run) -> Run:
    return run


def plain_loop(problem: il.Problem, params: Any, data: Any, batch: int) -> Callable[[int], Any]:
    """The ordinary training loop a person would compile, shuffling anew each epoch: the yardstick.

    Its argument is the number of steps.
    """
    x, y = data
    num_batches = x.shape[0] // batch

    @jax.jit
    def loop(params: Any, state: Any, steps: int) -> Any:
        def epoch(number: jax.Array, carry: Any) -> Any:
            order = jax.random.permutation(jax.random.fold_in(jax.random.key(0), number), x.shape[0])

            def step(i: jax.Array, carry: Any) -> Any:
                index = jax.lax.dynamic_slice_in_dim(order, i * batch, batch)
                return plain_step(problem, carry[0], carry[1], x[index], y[index])

            return jax.lax.fori_loop(0, jnp.minimum(num_batches, steps - number * num_batches), step, carry)

        return jax.lax.fori_loop(0, -(-steps // num_batches), epoch, (params, state))

    state = OPTIMISER.init(params)
    return lambda steps: loop(params, state, steps)


def plain_steps(problem: il.Problem, params: Any, data: Any, batch: int, steps: int) -> Callable[[], Any]:
    """Separately jitted ordinary steps, called from the host."""
    batches = [
        jax.tree.map(lambda a, i=i: a[i * batch : (i + 1) * batch], data) for i in range(data[0].shape[0] // batch)
    ]
    step = jax.jit(lambda *arguments: plain_step(problem, *arguments))

    def loop():
        carry = params, OPTIMISER.init(params)
        for i in range(steps):
            carry = step(*carry, *batches[i % len(batches)])
        return carry

    return loop


def plain_step(problem: il.Problem, params: Any, state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
    gradient = jax.grad(lambda p: problem.loss.mean(problem.apply(p, x), y))(params)
    updates, state = OPTIMISER.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def linearised_step(*arguments: Any) -> tuple[Any, Any]:
    displacement, state, _ = linearised_step_with_loss(*arguments)
    return displacement, state


def linearised_step_with_loss(
    problem: il.Problem, anchor: Any, displacement: Any, state: Any, x: jax.Array, y: jax.Array
) -> tuple[Any, Any, jax.Array]:
    linearised = problem.linearise(anchor)
    loss, cotangent = jax.value_and_grad(problem.loss.mean)(linearised.value(displacement, x), y)
    updates, state = OPTIMISER.update(linearised.vjp(x, cotangent), state, displacement)
    return optax.apply_updates(displacement, updates), state, loss


def zeros(params: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, params)
