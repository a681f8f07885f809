"""The paper's regime: rate 1e-3, long training, a handful of feature updates, on a subset of CIFAR-10.

Two parts. *Squared error*, full batch: gradient descent for a million steps, all steps of a window at once by
`SpectralDescent`, with K = 10⁴ (99 updates), 10⁵ (9) and none; ordinary training takes larger steps, for the same rate
× steps, at several rates, whose agreement would say that all follow the gradient flow. *Cross-entropy*: Adam on batches
of 64, with K = 1, with 9 updates and with none, in equally many steps. Rates are constant; nothing is chosen.
"""

import argparse
import itertools
from pathlib import Path

import jax
import numpy as np
import optax
import polars as pl

import relin as il
from relin.study import mean_interval

NEVER = 0
"""In the column `period`: no update, K = ∞."""
RECORDS = 20


def network(name, shape, seed, width):
    options = {"width": width} if name == "mlp" else {}
    return il.from_equinox(il.models.build(name, shape, 10, key=jax.random.key(seed), **options))


def schedule(period):
    return il.Never() if period == NEVER else il.Every(period)


def squares(options):
    """Solver, period, rate and number of steps of each run; all have the same rate × steps."""
    slow, steps = options.rate, round(options.time / options.rate)
    for period in (steps // 100, steps // 10, NEVER):
        yield il.SpectralDescent(slow), period, slow, steps
    for rate in options.ordinary_rates:
        yield il.WeightSpace(optax.sgd(rate)), 1, rate, round(options.time / rate)


def entropy(options):
    for period in (1, options.adam_steps // 10, NEVER):
        yield il.WeightSpace(optax.adam(options.rate)), period, options.rate, options.adam_steps


def trained(name, loss, runs, data, test, seed, options, batch_size=None):
    """A row for each record of each run."""
    for solver, period, rate, steps in runs:
        apply, params = network(name, data[0].shape[1:], seed, options.width)
        solution = il.train(
            il.Problem(apply, loss),
            solver,
            schedule(period),
            params,
            data,
            num_steps=steps,
            batch_size=batch_size,
            key=jax.random.key(seed),
            observers=[il.Performance(data, "train"), il.Performance(test)],
            record_every=max(1, steps // RECORDS),
            throw=False,
        )
        told = {"loss": type(loss).__name__, "network": name, "period": period, "rate": rate, "steps": steps}
        told |= {"seed": seed, "examples": len(data[0]), "result": solution.result.value}
        columns = ("step", "feature_updates", "train_loss", "train_accuracy", "test_accuracy")
        yield pl.DataFrame({column: np.asarray(solution.records[column]) for column in columns}).with_columns(
            **{key: pl.lit(value) for key, value in told.items()}
        )


def label(row):
    if row["period"] == 1:
        return f"K = 1, rate {row['rate']:g}"
    if row["period"] == NEVER:
        return "K = ∞"
    return f"K = {row['period']:,}"


def draw(rows, path):
    from matplotlib.figure import Figure

    parts = rows.select("loss", "network").unique(maintain_order=True).rows()
    figure = Figure(figsize=(5.2 * len(parts), 4.4), layout="constrained")
    titles = {"SquaredError": "squared error, full batch", "CrossEntropy": "cross-entropy, Adam"}
    for axes, (loss, name) in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        shown = rows.filter(loss=loss, network=name).with_columns(time=pl.col("rate") * pl.col("step"))
        for (period, rate), group in shown.group_by("period", "rate", maintain_order=True):
            complete = group.filter(pl.col("step").max().over("seed") == pl.col("steps"))
            mean = complete.group_by("time").agg(pl.col("test_accuracy").mean()).sort("time")
            name_of_line = label({"period": period, "rate": rate})
            ended, begun = complete["seed"].n_unique(), group["seed"].n_unique()
            if ended < begun:
                name_of_line += f": {ended} of {begun} runs came to the end"
            axes.plot(mean["time"], 100 * mean["test_accuracy"], marker=".", label=name_of_line)
        axes.set(xlabel="rate × steps", ylabel="test accuracy, %", title=f"{name.upper()}, {titles[loss]}")
        axes.grid(axis="y", alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def table(rows):
    """The end of each run, means and standard deviations over the seeds that came to it; others are counted."""
    keys = ("loss", "network", "examples", "period", "rate", "steps")
    last = rows.group_by(*keys, "seed", maintain_order=True).last()
    ended = pl.col("step") == pl.col("steps")
    measures = ("train_loss", "train_accuracy", "test_accuracy")
    ends = last.with_columns(pl.when(ended).then(100 * pl.col(name)).alias(name) for name in measures[1:])
    ends = ends.with_columns(pl.when(ended).then("train_loss").alias("train_loss"), ended=ended)
    return ends.group_by(keys, maintain_order=True).agg(
        pl.col("feature_updates").max(),
        pl.len().alias("seeds"),
        pl.col("ended").sum(),
        *(pl.col(name).mean() for name in measures),
        pl.col("test_accuracy").std().alias("deviation"),
    )


def differences(rows):
    """What each run's test accuracy is above each other's, in points, paired by seed, of runs that came to the end."""
    ends = rows.filter(pl.col("step") == pl.col("steps"))
    found = []
    for loss, name in ends.select("loss", "network").unique(maintain_order=True).rows():
        shown = ends.filter(loss=loss, network=name)
        for one, other in itertools.combinations(shown.select("period", "rate").unique(maintain_order=True).rows(), 2):
            first, second = (shown.filter(period=period, rate=rate) for period, rate in (one, other))
            pairs = first.join(second, on="seed")
            if len(pairs) > 1:
                change = 100 * (pairs["test_accuracy"] - pairs["test_accuracy_right"]).to_numpy()
                points = mean_interval(change, 0.95)
                names = (label({"period": period, "rate": rate}) for period, rate in (one, other))
                found.append((loss, name, *names, len(pairs), points.mean, points.low, points.high))
    columns = ("loss", "network", "run", "above", "seeds", "points", "low", "high")
    return pl.DataFrame(found, schema=columns, orient="row")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir", type=Path, help="where the data set's files are")
    parser.add_argument("--few", type=int, default=256, help="examples of the full batch")
    parser.add_argument("--many", type=int, default=5000, help="examples for Adam")
    parser.add_argument("--tested", type=int, default=10_000, help="test examples")
    parser.add_argument("--width", type=int, default=64, help="of the MLP")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--time", type=float, default=1000.0, help="rate × steps, of squared error")
    parser.add_argument("--ordinary-rates", type=float, nargs="+", default=[0.03, 0.01])
    parser.add_argument("--adam-steps", type=int, default=10_000)
    parser.add_argument("--networks", nargs="+", default=["mlp", "cnn"], help="for Adam")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("paper-regime"), help="folder of records, table and figure")
    parser.add_argument("--redraw", action="store_true", help="read the folder's records, and train nothing")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    stored = options.out / "records.csv"
    if not options.redraw:
        data, found = il.datasets.load(options.data, data_dir=options.data_dir), []
        test = data.test.x[: options.tested], data.test.y[: options.tested]
        few, many = ((data.train.x[:number], data.train.y[:number]) for number in (options.few, options.many))
        for seed in range(options.seeds):
            parts = [trained("mlp", il.SquaredError(), squares(options), few, test, seed, options)]
            for name in options.networks:
                parts.append(trained(name, il.CrossEntropy(), entropy(options), many, test, seed, options, 64))
            for rows in itertools.chain.from_iterable(parts):
                found.append(rows)
                pl.concat(found).write_csv(stored, float_precision=6)
    rows = pl.read_csv(stored)
    ends = table(rows)
    ends.write_csv(options.out / "table.csv", float_precision=4)
    pairs = differences(rows)
    pairs.write_csv(options.out / "differences.csv", float_precision=2)
    draw(rows, options.out / "paper-regime.png")
    for part in (ends, pairs):
        print(part.write_csv(separator="\t", float_precision=3))


if __name__ == "__main__":
    main()
