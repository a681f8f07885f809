"""Task vectors: what fine-tuning on a task adds to a checkpoint, saved, added, scaled and taken away again.

A checkpoint is an MLP trained on a few of Fashion-MNIST's examples, of all classes. The two tasks are to tell its first
five classes apart, and its last five, in the logits of these classes. A task vector is δ = θ − θ_0, of fine-tuning from
the checkpoint θ_0 with a period K: as usual (K = 1), with a few feature updates, or linearised at the checkpoint
(K = ∞), where δ is used in the linearised network f(x; θ_0) + J_0(x) δ, as it was trained. Each δ goes through a file.

`add` is θ_0 + α (δ_1 + δ_2), with the α that is best for both tasks on validation examples; `negate` is θ_0 − α δ_1,
with the largest α that keeps 95 % of the second task's validation accuracy.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors.numpy

import relin as il

CLASSES = 5
TASKS = {"classes 0–4": 0, "classes 5–9": CLASSES}
WAYS = {"K = 1": il.Every(1), "K = 64": il.Every(64), "K = ∞, linearised network": il.Never()}
FACTORS = [0.1 * tenths for tenths in range(1, 31)]
KEPT = 0.95


def network(seed):
    return il.from_equinox(il.models.build("mlp", (28, 28, 1), 2 * CLASSES, key=jax.random.key(seed)))


APPLY = network(0)[0]


def logits_of(first, params, x):
    """Of five classes alone."""
    return APPLY(params, x)[:, first : first + CLASSES]


def examples(part, first):
    chosen = (part.y >= first) & (part.y < first + CLASSES)
    return part.x[chosen], part.y[chosen] - first


def run(apply, schedule, steps, lane):
    """A training, of a learning rate, parameters and a key as arrays: one program serves all rates."""
    rate, params, key = lane
    optimiser = optax.sgd(optax.linear_schedule(rate, 0.0, steps), momentum=0.9)
    return il.Run(il.Problem(apply, il.CrossEntropy()), il.WeightSpace(optimiser), schedule, params, key)


def fine_tuned(first, schedule, start, data, options, seed):
    """θ, of the rate that is best on validation examples, and this rate."""
    lanes = [(rate, start, jax.random.key(seed)) for rate in options.rates]
    stacked = jax.tree.map(lambda *each: jnp.stack([jnp.asarray(array) for array in each]), *lanes)
    solutions = il.train_lanes(
        partial(run, partial(logits_of, first), schedule, options.steps),
        stacked,
        examples(data.train, first),
        num_steps=options.steps,
        batch_size=64,
        observers=[il.Performance(examples(data.validation, first), "validation")],
    )
    best = max(range(len(lanes)), key=lambda lane: solutions[lane].records["validation_accuracy"][-1])
    return solutions[best].params, options.rates[best]


def saved(delta, path):
    names = {
        jax.tree_util.keystr(place): np.asarray(leaf) for place, leaf in jax.tree_util.tree_leaves_with_path(delta)
    }
    safetensors.numpy.save_file(names, path)


def loaded(path, like):
    names = safetensors.numpy.load_file(path)
    return jax.tree_util.tree_map_with_path(lambda place, _: jnp.asarray(names[jax.tree_util.keystr(place)]), like)


def accuracies(way, start, delta, part):
    """On the first task, the second, and among all ten classes, in %."""
    x, y = part
    if isinstance(WAYS[way], il.Never):
        logits = il.Linearisation(APPLY, start).value(delta, jnp.asarray(x))
    else:
        logits = APPLY(optax.apply_updates(start, delta), jnp.asarray(x))
    found = []
    for first in TASKS.values():
        chosen = (y >= first) & (y < first + CLASSES)
        found.append(np.mean(np.argmax(logits[chosen, first : first + CLASSES], axis=1) == y[chosen] - first))
    found.append(np.mean(np.argmax(logits, axis=1) == y))
    return [100 * float(each) for each in found]


def scaled(delta, factor):
    return jax.tree.map(lambda leaf: factor * leaf, delta)


def of_one(way, start, deltas, data, tested):
    """The rows of one way: what was added to the checkpoint, the factor, the test accuracies."""
    parts = [(part.x[:tested], part.y[:tested]) for part in (data.validation, data.test)]
    one, other = deltas
    both = optax.apply_updates(one, other)
    none = scaled(one, 0.0)
    validation = partial(accuracies, way, start, part=parts[0])
    least = KEPT * validation(none)[1]
    add = max(FACTORS, key=lambda factor: sum(validation(scaled(both, factor))[:2]))
    negate = max((factor for factor in FACTORS if validation(scaled(one, -factor))[1] >= least), default=0.0)
    vectors = {"checkpoint": (0.0, none), "+ δ_1": (1.0, one), "+ δ_2": (1.0, other), "add": (add, both)}
    vectors["negate"] = (-negate, one)
    return {
        name: (factor, *accuracies(way, start, scaled(delta, factor), parts[1]))
        for name, (factor, delta) in vectors.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=500, help="that the checkpoint is trained on")
    parser.add_argument("--steps", type=int, default=2000, help="of fine-tuning; half as many of pre-training")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.03, 0.01, 0.003])
    parser.add_argument("--tested", type=int, default=10_000, help="examples to choose factors with, and to test with")
    options = parser.parse_args()
    data = il.datasets.load("fashion-mnist")
    found, rates = {}, {way: set() for way in WAYS}
    for seed in range(options.seeds):
        chosen = np.random.default_rng(seed).choice(len(data.train.y), options.examples, replace=False)
        few, steps = (data.train.x[chosen], data.train.y[chosen]), options.steps // 2
        lane = jax.tree.map(lambda array: jnp.asarray(array)[None], (0.03, network(seed)[1], jax.random.key(seed)))
        pretrain = partial(run, APPLY, il.Every(1), steps)
        start = il.train_lanes(pretrain, lane, few, num_steps=steps, batch_size=64)[0].params
        for way, schedule in WAYS.items():
            deltas = []
            with tempfile.TemporaryDirectory() as folder:
                for task, first in TASKS.items():
                    params, rate = fine_tuned(first, schedule, start, data, options, seed)
                    rates[way].add(rate)
                    file = Path(folder) / f"{task}.safetensors"
                    saved(jax.tree.map(jnp.subtract, params, start), file)
                    deltas.append(loaded(file, start))
            for name, row in of_one(way, start, deltas, data, options.tested).items():
                found.setdefault((way, name), []).append(row)
    print(
        "| way | parameters | α [least, most] | "
        + " | ".join((*TASKS, "all classes"))
        + " |\n|---|---|---|---|---|---|"
    )
    for (way, name), rows in found.items():
        factors, *columns = zip(*rows, strict=True)
        cells = [f"{mean(column):.1f}" + (f" ± {stdev(column):.1f}" if len(column) > 1 else "") for column in columns]
        spread = f" [{min(factors):.1f}, {max(factors):.1f}]" if min(factors) < max(factors) else ""
        print(f"| {way} | {name} | {mean(factors):.2f}{spread} | {' | '.join(cells)} |")
    for way, chosen in rates.items():
        print(f"Rates of {way}: {', '.join(f'{rate:g}' for rate in sorted(chosen))}")


if __name__ == "__main__":
    main()
