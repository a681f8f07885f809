"""relin's steps over the framework's own, with batch statistics and dropout on; and linearising the ViT."""

import functools
import time

import equinox as eqx
import jax
import numpy as np
import optax

import relin as il
from benchmarks._measure import compiled, flops, heading, row, seconds, table

KEY = jax.random.key(0)
OPTIMISER = optax.sgd(0.01, momentum=0.9)
FEW, MANY = 4, 14
"""Numbers of steps: the difference between the times of both is that of steps alone."""
CASES = {
    "resnet18": ((32, 32, 3), 32, {"width": 16, "norm": "batch"}, {"statistics": "batch"}),
    "gpt": ((64,), 32, {"dropout": 0.1}, {"dropout": True, "key": KEY}),
}
CLASSES = {"resnet18": 10, "gpt": 96}


def main() -> None:
    heading("relin's steps over the framework's own training step")
    table(("network", "batch", "framework's ms", "K = 1", "K = 64", "K = ∞", "FLOP ratio of K > 1"))
    for name in CASES:
        measure(name)
    heading("Linearising the ViT at batch 64")
    table(("network", "parameters", "step", "compilation, s", "memory, MB", "run, s"))
    vision_transformer()


def measure(name: str) -> None:
    shape, batch, options, mode = CASES[name]
    module = il.models.build(name, shape, CLASSES[name], key=KEY, **options)
    batches = [example_batch(name, shape, batch, seed) for seed in range(MANY)]
    own = own_loop(module, name, batches)
    apply, params = il.from_equinox(module, **mode)
    problem = il.Problem(apply, il.CrossEntropy())
    trained = problem.trained(problem.variables)
    x, y = batches[0]
    ratio = flops(compiled(trained.linearised_value_and_grad, params, params, x, y))
    ratio /= flops(compiled(trained.value_and_grad, params, x, y))
    solver = il.WeightSpace(OPTIMISER)

    def loop(schedule):
        def run(num_steps):
            return il.train(
                problem, solver, schedule, params, batches, num_steps=num_steps, key=KEY, throw=False
            ).params

        return run

    loops = [own, *(loop(schedule) for schedule in (il.Every(1), il.Every(64), il.Never()))]
    ends = [functools.partial(run, num_steps) for run in loops for num_steps in (FEW, MANY)]
    times = seconds(ends, repeats=5)
    step = [(many - few) / (MANY - FEW) for few, many in zip(times[::2], times[1::2], strict=True)]
    row(name, batch, step[0] * 1e3, *(t / step[0] for t in step[1:]), ratio)


def own_loop(module, name, batches):
    """Equinox's own: `eqx.filter_jit` around `eqx.filter_grad` and Optax."""
    stateful = name == "resnet18"
    start = eqx.nn.make_with_state(lambda: module)() if stateful else (module, None)
    optimiser_state = OPTIMISER.init(eqx.filter(start[0], eqx.is_inexact_array))

    def outputs(module, state, keys, x):
        if stateful:
            return jax.vmap(lambda x: module(x, state), axis_name="batch", out_axes=(0, None))(x)
        return jax.vmap(lambda x, key: module(x, key=key))(x, keys), None

    @eqx.filter_jit
    def step(module, state, optimiser_state, number, x, y):
        keys = jax.random.split(jax.random.fold_in(KEY, number), len(x))

        @eqx.filter_grad(has_aux=True)
        def gradient(module):
            logits, after = outputs(module, state, keys, x)
            logits = logits.reshape(*y.shape, -1)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), after

        slope, state_after = gradient(module)
        updates, optimiser_state = OPTIMISER.update(slope, optimiser_state, eqx.filter(module, eqx.is_inexact_array))
        return eqx.apply_updates(module, updates), state_after, optimiser_state

    def run(num_steps):
        module, state, own = start[0], start[1], optimiser_state
        for number, batch in enumerate(batches[:num_steps]):
            module, state, own = step(module, state, own, np.int32(number), *batch)
        return eqx.filter(module, eqx.is_inexact_array)

    return run


def example_batch(name, shape, batch, seed):
    random = np.random.default_rng(seed)
    if name == "gpt":
        return random.integers(0, CLASSES[name], (batch, *shape)), random.integers(0, CLASSES[name], (batch, *shape))
    return random.normal(size=(batch, *shape)).astype(np.float32), random.integers(0, CLASSES[name], batch)


def vision_transformer() -> None:
    shape = (32, 32, 3)
    apply, params = il.from_equinox(il.models.build("vit", shape, 10, key=KEY))
    problem = il.Problem(apply, il.CrossEntropy())
    x, y = example_batch("resnet18", shape, 64, 0)
    number = sum(leaf.size for leaf in jax.tree.leaves(params))
    steps = {
        "ordinary": (problem.value_and_grad, (params, x, y)),
        "linearised": (problem.linearised_value_and_grad, (params, params, x, y)),
    }
    for name, (step, arguments) in steps.items():
        start = time.perf_counter()
        program = compiled(step, *arguments)
        took = time.perf_counter() - start
        memory = program.memory_analysis()
        total = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
        once = seconds([lambda program=program, arguments=arguments: program(*arguments)], repeats=2)[0]
        row("ViT-Ti", f"{number:,}", name, took, total / 1e6, once)
