# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # The kernel of a network, and what moves it
#
# The neural tangent kernel Θ(x, x′) = J(x) J(x′)ᵀ says how a gradient step on x changes the output at x′. Here are
# its largest eigenvalues, for a small MLP on 40 images of digits.

# %%
import jax
import jax.numpy as jnp
import optax

import relin as il
from relin.kernel import ntk, spectrum, target_alignment

data = il.datasets.load("digits")
apply, params = il.from_equinox(il.models.build("mlp", (8, 8, 1), 10, key=jax.random.key(0), width=32, depth=2))
x, y = data.validation.x[:40], data.validation.y[:40]
spectrum((apply, params, x), 20, key=jax.random.key(0))

# %% [markdown]
# Lazy training (K = ∞) keeps the kernel as it is; ordinary training (K = 1) moves it at every step. Between two
# feature updates the kernel of the linearised network stands still. Three runs that differ in K alone:

# %%
problem = il.Problem(apply, il.CrossEntropy())
periods = jnp.array([1, 16, 10**6])  # the last is K = ∞ here: longer than the run


def make(period):
    solver = il.WeightSpace(optax.sgd(0.05, momentum=0.9))
    return il.Run(problem, solver, il.Every(period), params, jax.random.key(1))


observers = [il.KernelDrift((x, y), outputs="mean"), il.Performance(data.test, "test")]
lanes = il.train_lanes(
    make, periods, data, num_steps=128, batch_size=64, observers=observers, record_every=32, progress=False
)
lanes.plot("kernel_distance", "test_accuracy")

# %% [markdown]
# `run 0` is K = 1, `run 1` is K = 16, `run 2` is K = ∞. The kernel moves towards the targets: its alignment with them
# grows where features are learned, and only there.

# %%
before = target_alignment(ntk(apply, params, x, outputs="mean"), y, num_classes=10)
after = {
    f"K = {K}": target_alignment(ntk(apply, run.anchor, x, outputs="mean"), y, num_classes=10)
    for K, run in zip((1, 16, "∞"), lanes, strict=True)
}
{"at the beginning": float(before)} | {name: float(value) for name, value in after.items()}
