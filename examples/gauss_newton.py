"""Gauss–Newton as practitioners use it: iterations to a loss, against Adam and Muon with as large a batch.

The loop of Abreu et al. (arXiv:2510.09378) on a small GPT that predicts bytes of text. An iteration is one window: K
inner steps of Muon on fresh batches, linearised once, at a rate that falls by half a cosine within the window; the
anchor moves towards the mean of the iterates, as far as the best of a grid of scales says. Adam and Muon take one step
an iteration, on the examples of all K batches, so that an iteration is as many tokens for each way. Layer by layer,
each part of the network is linearised in windows of its own, that begin one after another.
"""

import argparse
import sysconfig

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import relin as il

PARTS = ("tokens", "positions", "blocks.0.*", "blocks.1.*")
WAYS = ("Adam", "Muon", "Gauss–Newton", "layer by layer")


def clipped(optimiser):
    return optax.chain(optax.clip_by_global_norm(1.0), optimiser)


def of_step(way, rate, iterations):
    """Solver, schedule and safeguard of a way that takes one step an iteration."""
    make = {"Adam": optax.adam, "Muon": optax.contrib.muon}[way]
    return il.WeightSpace(clipped(make(optax.cosine_decay_schedule(rate, iterations)))), il.Every(1), None


def of_window(way, rate, window):
    """The same of a way whose iterations are windows of inner steps."""
    muon = clipped(optax.contrib.muon(rate))
    if way == "Gauss–Newton":
        average = il.ExponentialAverage(0.999)
        solver = il.WeightSpace(muon, window_rate=il.CosineWindow(), averaging=average)
        return solver, il.Every(window), il.GridSearch(batches=4)
    each = window * np.arange(1, 10_000)
    begin = {part: il.AtSteps(each + window * turn // len(PARTS)) for turn, part in enumerate(PARTS)}
    return il.WeightSpace(muon), il.PerParameter({**begin, "*": il.Every(window)}), None


def run(way, rate, seed, data, options):
    """Validation loss in nats a byte after each iteration."""
    network = il.models.build("gpt", (options.length,), 256, key=jax.random.key(seed), width=options.width, depth=2)
    apply, params = il.from_equinox(network)
    by_step = way in ("Adam", "Muon")
    a_batch, steps = options.batch, 1 if by_step else options.window
    solver, schedule, safeguard = (
        of_step(way, rate, options.iterations) if by_step else of_window(way, rate, options.window)
    )
    solution = il.train(
        il.Problem(apply, il.CrossEntropy()),
        solver,
        schedule,
        params,
        data,
        num_steps=options.iterations * steps,
        batch_size=a_batch * (options.window if by_step else 1),
        key=jax.random.fold_in(jax.random.key(seed), 1),
        observers=[il.Performance(tuple(part[:256] for part in data.validation), "validation")],
        record_every=steps,
        safeguard=safeguard,
        throw=False,
    )
    name = "network_validation_loss" if "network_validation_loss" in solution.records else "validation_loss"
    return solution.records[name]


def first_below(losses, level):
    below = np.flatnonzero(losses <= level)
    return int(below[0]) if below.size else None


def picture(found, tokens, path):
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for way, (rate, losses) in found.items():
        axes.plot(np.arange(losses.shape[1]), losses.mean(0), label=f"{way}, rate {rate:g}")
        axes.fill_between(np.arange(losses.shape[1]), losses.min(0), losses.max(0), alpha=0.2)
    axes.set(xlabel=f"iterations of {tokens:,} tokens", ylabel="validation loss, nats a byte")
    axes.legend()
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", default=sysconfig.get_path("stdlib"), help="folder, by default Python's library")
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--window", type=int, default=16, help="inner steps K of an iteration")
    parser.add_argument("--batch", type=int, default=16, help="sequences of an inner step")
    parser.add_argument("--length", type=int, default=32, help="bytes of a sequence")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.03, 0.01, 0.003])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--figure", help="where the picture goes")
    options = parser.parse_args()
    data = il.datasets.text(options.text, pattern="*.py", length=options.length, level="byte")
    tokens = options.window * options.batch * options.length
    found = {}
    for way in WAYS:
        lowest = {rate: run(way, rate, 0, data, options) for rate in options.rates}
        rate = min(lowest, key=lambda rate: np.nan_to_num(lowest[rate][-1], nan=np.inf))
        others = [run(way, rate, seed, data, options) for seed in range(1, options.seeds)]
        found[way] = rate, np.stack([lowest[rate], *others])
    levels = [2.6, 2.4, 2.2, 2.0]
    print(f"Iterations of {tokens:,} tokens to a validation loss, mean of the seeds; nats a byte at the end")
    print(f"{'way':16} {'rate':>6} " + " ".join(f"{f'≤ {level}':>7}" for level in levels) + f" {'at end':>7}")
    for way, (rate, losses) in found.items():
        to = [first_below(losses.mean(0), level) for level in levels]
        cells = " ".join(f"{'–' if n is None else n:>7}" for n in to)
        print(f"{way:16} {rate:>6g} {cells} {losses[:, -1].mean():>7.3f}")
    if options.figure:
        picture(found, tokens, options.figure)


if __name__ == "__main__":
    main()
