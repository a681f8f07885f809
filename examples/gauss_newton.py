"""Gauss–Newton as practitioners use it: iterations to a loss, against Adam and Muon with as large a batch.

The loop of Abreu et al. (arXiv:2510.09378) on a small GPT that predicts bytes of text. An iteration is one window: K
inner steps of Muon on fresh batches, linearised once, at a rate that falls by half a cosine within the window; the
anchor moves towards the mean of the iterates, as far as the best of a grid of scales says. Adam and Muon take one step
an iteration, on the examples of all K batches, so that an iteration is as many tokens for each way, though one of
Gauss–Newton takes K steps in a row. Part by part, each part of the network is linearised in windows of its own that
begin one after another, at a constant rate, without mean or search. It is not the layerwise method of that paper, which
ignores what layers do to one another; here each step's gradient is that of all parts.
"""

import argparse
import sysconfig
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import polars as pl

import relin as il

PARTS = ("tokens", "positions", "blocks.0.*", "blocks.1.*")
RATES = {
    "Adam": (0.1, 0.03, 0.01, 0.003),
    "Muon": (0.3, 0.1, 0.03, 0.01),
    "Gauss–Newton": (0.1, 0.03, 0.01, 0.003),
    "part by part": (0.1, 0.03, 0.01, 0.003),
}
"""Of each way; the best of them is its rate."""


class AtAnchor(il.AbstractObserver):
    """The network's loss at the anchor: after a window's mean and the grid of scales have moved it."""

    x: jax.Array
    y: jax.Array

    def compute(self, context, state):
        _, _, at_anchor = context.predictions(self.x)
        return {"anchor_loss": context.problem.loss.mean(at_anchor, self.y)}, state


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
    """The network's validation loss in nats a byte, at the beginning and after each iteration."""
    network = il.models.build("gpt", (options.length,), 256, key=jax.random.key(seed), width=options.width, depth=2)
    apply, params = il.from_equinox(network)
    by_step = way in ("Adam", "Muon")
    moved = way == "Gauss–Newton"  # by mean and search, at the next step only
    validation = tuple(part[:256] for part in data.validation)
    steps = 1 if by_step else options.window
    solver, schedule, safeguard = (
        of_step(way, rate, options.iterations) if by_step else of_window(way, rate, options.window)
    )
    solution = il.train(
        il.Problem(apply, il.CrossEntropy()),
        solver,
        schedule,
        params,
        data,
        num_steps=options.iterations * steps + moved,
        batch_size=options.batch * (options.window if by_step else 1),
        key=jax.random.fold_in(jax.random.key(seed), 1),
        observers=[AtAnchor(*validation) if moved else il.Performance(validation, "validation")],
        record_every=steps,
        safeguard=safeguard,
        throw=False,
    )
    return solution.records["anchor_loss"][1:] if moved else solution.records["network_validation_loss"]


def first_below(losses, level):
    below = np.flatnonzero(losses <= level)
    return int(below[0]) if below.size else None


def trained(data, options):
    """The loss after each iteration, of every way at the rate whose first seed ends lowest."""
    found = {}
    for way in RATES:
        lowest = {rate: run(way, rate, 0, data, options) for rate in options.rates or RATES[way]}
        ends = {rate: float(np.nan_to_num(losses[-1], nan=np.inf)) for rate, losses in lowest.items()}
        rate = min(ends, key=ends.__getitem__)
        others = [run(way, rate, seed, data, options) for seed in range(1, options.seeds)]
        found[way] = rate, ends, np.stack([lowest[rate], *others])
        print(f"{way}: first seed ends at", {rate: round(end, 3) for rate, end in ends.items()}, flush=True)
    return found


def table(found, levels):
    head = [f"to {level:g}" for level in levels]
    for way, (rate, ends, losses) in found.items():
        edge = {max(ends): "↥", min(ends): "↧"}.get(rate, "") if len(ends) > 1 else ""
        to = [first_below(losses.mean(0), level) for level in levels]
        cells = ["–" if n is None else str(n) for n in to]
        end = f"{losses[:, -1].mean():.3f}", f"{np.ptp(losses[:, -1]):.3f}"
        yield (
            {"way": way, "rate": f"{rate:g}{edge}"}
            | dict(zip(head, cells, strict=True))
            | {
                "at the end": end[0],
                "seeds differ by": end[1],
            }
        )


def picture(found, tokens, path):
    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for way, (rate, _, losses) in found.items():
        axes.plot(np.arange(losses.shape[1]), losses.mean(0), label=f"{way}, rate {rate:g}")
        axes.fill_between(np.arange(losses.shape[1]), losses.min(0), losses.max(0), alpha=0.2)
    axes.set(xlabel=f"iterations of {tokens:,} bytes", ylabel="validation loss, nats a byte")
    axes.set_title("Lines: mean of the seeds; bands: all of them", fontsize="medium", loc="left")
    axes.legend()
    figure.savefig(path, dpi=150)


def store(found, rows, tokens, folder):
    folder.mkdir(parents=True, exist_ok=True)
    losses = [
        {"way": way, "rate": rate, "seed": seed, "iteration": i, "validation_loss": float(loss)}
        for way, (rate, _, of_seeds) in found.items()
        for seed, course in enumerate(of_seeds)
        for i, loss in enumerate(course)
    ]
    pl.DataFrame(losses).write_csv(folder / "losses.csv", float_precision=4)
    rates = [
        {"way": way, "rate": rate, "first seed ends at": end}
        for way, (_, ends, _) in found.items()
        for rate, end in ends.items()
    ]
    pl.DataFrame(rates).write_csv(folder / "rates.csv", float_precision=4)
    rows.write_csv(folder / "table.csv")
    picture(found, tokens, folder / "losses.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", default=sysconfig.get_path("stdlib"), help="folder, by default Python's library")
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--window", type=int, default=16, help="inner steps K of an iteration")
    parser.add_argument("--batch", type=int, default=16, help="sequences of an inner step")
    parser.add_argument("--length", type=int, default=32, help="bytes of a sequence")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rates", type=float, nargs="+", help="for all ways alike")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--levels", type=float, nargs="+", default=[3.2, 3.0, 2.8, 2.6], help="losses to be reached")
    parser.add_argument("--out", type=Path, help="folder of losses, tables and picture")
    options = parser.parse_args()
    data = il.datasets.text(options.text, pattern="*.py", length=options.length, level="byte")
    tokens = options.window * options.batch * options.length
    found = trained(data, options)
    rows = pl.DataFrame(list(table(found, options.levels)))
    print(f"Iterations of {tokens:,} bytes to a validation loss, mean of the seeds, in nats a byte")
    print(rows.write_csv(separator="\t"))
    if options.out:
        store(found, rows, tokens, options.out)


if __name__ == "__main__":
    main()
