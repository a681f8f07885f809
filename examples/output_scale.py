"""Two dials from feature learning to lazy training: the period K and the output scale α.

Trains an MLP with K = 1 at several α, and with α = 1 at several K, and shows test accuracy against how far the kernel
moved: at one learning rate for all, and at the rate that is best for each on validation data, chosen by other seeds.
At α the rate is divided by α². All runs are lanes of one program.
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl

import relin as il

LAZY = 10**9
"""A period that no run reaches: K = ∞."""
CHOOSING = 2
"""Seeds that choose the rates; others are reported."""
CHOICE, EQUAL, BEST = "tried", "one for all", "best of each"
CHANCE = 0.1


def network(shape, seed):
    return il.from_equinox(il.models.build("mlp", shape, 10, key=jax.random.key(seed), width=64, depth=2))


def run(apply, steps, lane):
    alpha = lane["alpha"]
    rate = optax.linear_schedule(lane["rate"] / alpha**2, 0.0, steps)
    problem = il.Problem(il.scaled(apply, lane["params"], alpha), il.CrossEntropy())
    solver, key = il.WeightSpace(optax.sgd(rate, momentum=0.9)), jax.random.key(lane["seed"])
    return il.Run(problem, solver, il.Every(lane["period"]), lane["params"], key)


def trained(runs, data, steps):
    """A row for each run (α, K, rate, seed): how it ended."""
    shape = data.train.x.shape[1:]
    params = {seed: network(shape, seed)[1] for _, _, _, seed in runs}
    names = ("alpha", "period", "rate", "seed")
    lanes = {name: jnp.asarray([each[i] for each in runs]) for i, name in enumerate(names)}
    lanes["params"] = jax.tree.map(lambda *each: jnp.stack(each), *(params[seed] for *_, seed in runs))
    probe = data.validation.x[:128], data.validation.y[:128]
    observers = il.Performance(data.validation, "validation"), il.Performance(data.test), il.KernelDrift(probe)
    make = partial(run, network(shape, 0)[0], steps)
    ends = il.train_lanes(make, lanes, data.train, num_steps=steps, batch_size=64, observers=observers)
    columns = "validation_accuracy", "test_accuracy", "kernel_change"
    return pl.DataFrame(
        [
            dict(zip(names, each, strict=True))
            | {column: float(end.records[column][-1]) for column in columns}
            | {"feature_updates": end.feature_updates, "result": end.result.value}
            for each, end in zip(runs, ends, strict=True)
        ]
    )


def all_runs(options):
    """The runs that choose the rates, those at one rate for all, and those at the best rate of each."""
    train = partial(trained, data=il.datasets.load(options.data), steps=options.steps)
    points = settings(options.alphas, options.periods)
    choosing = [(*each, rate, 1000 + seed) for each in points for rate in options.rates for seed in range(CHOOSING)]
    rows = {CHOICE: train(choosing)}
    best = chosen(rows[CHOICE])
    for name, rate_of in {EQUAL: lambda each: options.equal_rate, BEST: best.get}.items():
        rows[name] = train([(*each, rate_of(each), seed) for each in points for seed in range(options.seeds)])
    told = {"data": pl.lit(options.data), "steps": pl.lit(options.steps)}
    return pl.concat([part.with_columns(rates=pl.lit(name), **told) for name, part in rows.items()])


def settings(alphas, periods):
    """α and K of every point; the two dials share (1, 1), and K = ∞ is where α → ∞ leads."""
    return [(alpha, 1) for alpha in alphas] + [(1.0, period) for period in (*periods, LAZY)]


def chosen(rows):
    """The rate of each setting with the best mean validation accuracy; of equal ones the largest."""
    means = rows.group_by("alpha", "period", "rate").agg(pl.col("validation_accuracy").mean())
    best = means.sort("validation_accuracy", "rate").group_by("alpha", "period", maintain_order=True).last()
    return {(alpha, period): rate for alpha, period, rate in best.select("alpha", "period", "rate").iter_rows()}


def summary(rows):
    """Means over the seeds, with the standard error of the accuracy; what did not train counts at chance."""
    trained = pl.col("result") == il.Result.successful.value
    percent = 100 * pl.when(trained).then("test_accuracy").otherwise(CHANCE)
    return rows.group_by("rates", "alpha", "period", "rate", maintain_order=True).agg(
        accuracy=percent.mean(),
        error=percent.std() / pl.len().sqrt(),
        kernel_change=pl.col("kernel_change").filter(trained).mean(),
        trained=trained.sum(),
    )


def dials(table):
    """By name: the points of each dial, from feature learning to lazy training, and their labels."""
    alphas = table.filter(period=1).sort("alpha")
    periods = table.filter(pl.col("alpha") == 1, pl.col("period") < LAZY).sort("period")
    seeds, pairs = table["trained"].max(), alphas.select("alpha", "trained").iter_rows()
    texts = [f"{alpha:g}" if trained == seeds else f"{alpha:g} ({trained}/{seeds})" for alpha, trained in pairs]
    yield "output scale α, at K = 1", alphas, texts
    yield "period K, at α = 1", periods, [str(period) for period in periods["period"]]


def labels(texts, x, y):
    """The labels of points and where they stand: one for neighbours that are close, at the rightmost of them."""
    groups = []
    for text, *at in zip(texts, x, y, strict=True):
        if groups and abs(np.log10(at[0] / groups[-1][0][1][0])) < 0.15 and abs(at[1] - groups[-1][0][1][1]) < 1:
            groups[-1].append((text, at))
        else:
            groups.append([(text, at)])
    return [(", ".join(text for text, _ in group), max(at for _, at in group)) for group in groups]


def draw(table, title, path):
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    figure = Figure(figsize=(13, 5.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2, sharey=True), (EQUAL, BEST), strict=True):
        shown = table.filter(rates=name).drop_nulls()  # where no run trained there is no point
        styles = ("#0072b2", "#d55e00"), "os", ("right", "left")
        for (label, points, texts), colour, mark, align in zip(dials(shown), *styles, strict=True):
            x, y = points["kernel_change"], points["accuracy"]
            axes.errorbar(x, y, points["error"], fmt=f"{mark}-", color=colour, label=label, capsize=3)
            for text, at in labels(texts, x, y):
                place = {"xytext": (-7, 7) if align == "right" else (9, -7), "textcoords": "offset points", "ha": align}
                note = axes.annotate(text, at, color=colour, va="center", **place)
                note.set_path_effects([withStroke(linewidth=3, foreground="white")])
        lazy = shown.filter(period=LAZY)["accuracy"][0]
        axes.axhline(lazy, color="#59636e", linestyle="--", label="K = ∞ at α = 1")
        axes.set(xscale="log", xlabel="relative change of the kernel", title=f"learning rate: {name}")
        axes.margins(x=0.14)
        axes.grid(axis="y", alpha=0.3)
    axes = figure.axes[0]
    axes.set_ylabel("test accuracy, %")
    axes.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist1d", help="name of a data set")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0])
    parser.add_argument("--periods", type=int, nargs="+", default=[4, 16, 64, 256, 1024])
    parser.add_argument("--rates", type=float, nargs="+", default=[10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001])
    parser.add_argument("--equal-rate", type=float, default=0.01)
    parser.add_argument("--out", type=Path, default=Path("output-scale"), help="folder of runs, table and figure")
    parser.add_argument("--redraw", action="store_true", help="read the folder's runs, and train none")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    stored = options.out / "runs.csv"
    if not options.redraw:
        all_runs(options).write_csv(stored, float_precision=6)
    rows = pl.read_csv(stored).filter(pl.col("rates") != CHOICE)
    table = summary(rows)
    table.write_csv(options.out / "table.csv", float_precision=4)
    data, steps, seeds = rows["data"][0], rows["steps"][0], rows["seed"].n_unique()
    title = f"{data}, MLP of width 64, {steps} steps, {seeds} seeds ± standard error (in brackets: trained)"
    draw(table, title, options.out / "output-scale.png")
    print(table.write_csv(separator="\t", float_precision=2))


if __name__ == "__main__":
    main()
