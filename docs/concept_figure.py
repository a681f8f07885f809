"""Draws docs/images/concept.png: the loss of a network of one weight, and of its linearisations on the way."""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import relin as il

X, Y = jnp.linspace(-2, 2, 9)[:, None], jnp.sin(2.2 * jnp.linspace(-2, 2, 9))[:, None]
START, RATE, STEPS = 1.1, 0.04, 24


def apply(params, x):
    return jnp.sin(params["w"] * x)


def loss(outputs):
    return float(il.SquaredError().mean(outputs, Y))


def anchors(schedule):
    """Every anchor in turn, and the weight where training ended."""
    problem, solver = il.Problem(apply, il.SquaredError()), il.WeightSpace(optax.sgd(RATE))
    found = []
    for steps in range(1, STEPS + 1):
        options = {"num_steps": steps, "key": jax.random.key(0)}
        end = il.train(problem, solver, schedule, {"w": jnp.asarray(START)}, (X, Y), **options)
        if not found or float(end.anchor["w"]) != found[-1]:
            found.append(float(end.anchor["w"]))
    return found, float(end.params["w"])


def main():
    weights = np.linspace(0.9, 3.0, 300)
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.1), sharey=True, layout="constrained")
    network = [loss(apply({"w": w}, X)) for w in weights]
    cases = (("K = 1", il.Every(1)), ("K = 6", il.Every(6)), ("K = ∞", il.Never()))
    for axes, (title, schedule) in zip(panels, cases, strict=True):
        own, end = anchors(schedule)
        axes.plot(weights, network, color="#333333", linewidth=2, label="network")
        for number, anchor in enumerate(own if len(own) < 10 else []):
            line = il.Linearisation(apply, {"w": jnp.asarray(anchor)})
            values = [loss(line.value({"w": jnp.asarray(w - anchor)}, X)) for w in weights]
            label = "linearised at the anchors" if number == 0 else None
            axes.plot(weights, values, color="#d95f02", linewidth=1, alpha=0.8, label=label)
        axes.plot(own, [loss(apply({"w": w}, X)) for w in own], "o", color="#d95f02", markersize=5, label="anchors")
        axes.plot(end, loss(apply({"w": end}, X)), "*", color="#1b9e77", markersize=13, label="end")
        axes.set(title=f"{title}: {len(own) - 1} feature updates", xlabel="weight", ylim=(-0.04, 0.62))
        axes.legend(loc="upper right", fontsize=8, frameon=False)
    panels[0].set_ylabel("loss")
    folder = Path(__file__).parent / "images"
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / "concept.png", dpi=160)


if __name__ == "__main__":
    main()
