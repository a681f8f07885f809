"""Linearised fine-tuning: how much does a pre-trained network have to learn features anew?

Pre-trains an MLP on Fashion-MNIST's first five classes, keeps it as a checkpoint, and fine-tunes it on few examples of
the other five in several ways: with the features of the checkpoint (K = ∞), updating them every 64 steps, as usual
(K = 1), in the body or in the head alone, and from a fresh network. Each way's learning rate is the best on the
validation examples.
"""

import argparse
import tempfile
from functools import partial
from statistics import mean, stdev

import jax
import jax.numpy as jnp
import numpy as np
import optax

import relin as il

BODY, HEAD = "layers.[01].*", "layers.2.*"
FRESH, ORDINARY, HEAD_ALONE = "fresh network, K = 1", "K = 1", "head alone trained"
WAYS = {
    FRESH: il.Every(1),
    ORDINARY: il.Every(1),
    "K = 64": il.Every(64),
    "K = ∞: linearised at the checkpoint": il.Never(),
    "lazy body, head K = 1": il.PerParameter({HEAD: il.Every(1), "*": il.Never()}),
    "lazy head, body K = 1": il.PerParameter({BODY: il.Every(1), "*": il.Never()}),
    HEAD_ALONE: il.Every(1),
}
AFTERWARDS = "K = 1, linearised afterwards"


def network(seed):
    return il.from_equinox(il.models.build("mlp", (28, 28, 1), 5, key=jax.random.key(seed)))


APPLY = network(0)[0]


def classes(part, first):
    """The examples of five classes, renumbered from 0."""
    chosen = (part.y >= first) & (part.y < first + 5)
    return part.x[chosen], part.y[chosen] - first


def run(way, steps, lane):
    """One fine-tuning, of a learning rate, a checkpoint and a key as arrays: one program serves all of them."""
    rate, start, key = lane
    apply, params = il.trainable(APPLY, start, HEAD) if way == HEAD_ALONE else (APPLY, start)
    solver = il.WeightSpace(optax.sgd(optax.linear_schedule(rate, 0.0, steps), momentum=0.9))
    return il.Run(il.Problem(apply, il.CrossEntropy()), solver, WAYS[way], params, key)


def stacked(lanes):
    return jax.tree.map(lambda *each: jnp.stack([jnp.asarray(array) for array in each]), *lanes)


def checkpoint(make, seed, rate, data, steps, folder):
    """Pre-trained parameters with a new head, by way of a file."""
    _, params = network(seed)
    lanes = stacked([(rate, params, jax.random.key(seed))])
    il.train_lanes(make, lanes, data, num_steps=steps, batch_size=64)[0].save(folder)
    apply, _ = il.trainable(APPLY, il.load(folder, params).params, HEAD)
    return apply.full(il.trainable(APPLY, network(seed + 1000)[1], HEAD)[1])


def accuracy_afterwards(start, params, test):
    """Of the network linearised at the checkpoint, at the displacement that ordinary fine-tuning made."""
    displacement = jax.tree.map(lambda a, b: a - b, params, start)
    outputs = il.Linearisation(APPLY, start).value(displacement, jnp.asarray(test[0]))
    return float(jnp.mean(jnp.argmax(outputs, axis=1) == test[1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=500, help="to fine-tune on")
    parser.add_argument("--steps", type=int, default=1000, help="of fine-tuning; three times as many of pre-training")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.03, 0.01, 0.003])
    parser.add_argument("--pretraining-rate", type=float, default=0.03)
    options = parser.parse_args()
    dataset = il.datasets.load("fashion-mnist")
    validation, test = (classes(part, 5) for part in (dataset.validation, dataset.test))
    observers = [il.Performance(validation, "validation"), il.Performance(test, "test")]
    pretrain = partial(run, ORDINARY, 3 * options.steps)
    makes = {way: partial(run, way, options.steps) for way in WAYS}
    found = {way: [] for way in (*WAYS, AFTERWARDS)}
    for seed in range(options.seeds):
        x, y = classes(dataset.train, 5)
        chosen = np.random.default_rng(seed).choice(len(x), options.examples, replace=False)
        with tempfile.TemporaryDirectory() as folder:
            rate = options.pretraining_rate
            start = checkpoint(pretrain, seed, rate, classes(dataset.train, 0), 3 * options.steps, folder)
        for way, make in makes.items():
            begin = network(seed + 2000)[1] if way == FRESH else start
            lanes = [(rate, begin, jax.random.key(seed)) for rate in options.rates]
            solutions = il.train_lanes(
                make,
                stacked(lanes),
                (x[chosen], y[chosen]),
                num_steps=options.steps,
                batch_size=64,
                observers=observers,
            )
            best = max(range(len(lanes)), key=lambda lane: solutions[lane].records["validation_accuracy"][-1])
            solution, rate = solutions[best], options.rates[best]
            found[way].append((solution.records["test_accuracy"][-1], rate, solution.feature_updates))
            if way == ORDINARY:
                found[AFTERWARDS].append((accuracy_afterwards(start, solution.params, test), rate, 0))
    print(f"{'way':36} {'test accuracy, %':>17} {'feature updates':>16} {'rates':>18}")
    for way, runs in found.items():
        accuracies = [100 * float(accuracy) for accuracy, _, _ in runs]
        spread = f" ± {stdev(accuracies):.2f}" if len(runs) > 1 else ""
        rates = ", ".join(f"{rate:g}" for rate in sorted({rate for _, rate, _ in runs}))
        print(f"{way:36} {f'{mean(accuracies):.2f}{spread}':>17} {max(n for _, _, n in runs):>16} {rates:>18}")


if __name__ == "__main__":
    main()
