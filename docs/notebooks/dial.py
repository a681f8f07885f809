# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # The dial, K and T, on one page
#
# K is the number of steps between feature updates, T the number of steps in all. One call trains every K with two
# seeds; at a constant learning rate, a record at step T is the end of a run of T steps.

# %%
import altair as alt
import jax
import jax.numpy as jnp
import optax
import polars as pl
from IPython.display import HTML

import relin as il
from relin.report import altair_config

data = il.datasets.load("digits")
apply, _ = il.from_equinox(il.models.build("mlp", (8, 8, 1), 10, key=jax.random.key(0), width=32, depth=2))
problem = il.Problem(apply, il.CrossEntropy())
K = [1, 4, 16, 64, 1024]  # the last is K = ∞ here: longer than the run
SEEDS, RATE, STEPS = 2, 0.1, 256


def make(lane):
    seed, period = lane
    _, params = il.from_equinox(il.models.build("mlp", (8, 8, 1), 10, key=jax.random.key(seed), width=32, depth=2))
    return il.Run(problem, il.WeightSpace(optax.sgd(RATE)), il.Every(period), params, jax.random.key(seed))


lanes = jnp.repeat(jnp.arange(SEEDS), len(K)), jnp.tile(jnp.array(K), SEEDS)
observers = [il.Performance(data.test, "test"), il.LinearisationError(data.test.x[:100])]
solutions = il.train_lanes(
    make, lanes, data, num_steps=STEPS, batch_size=64, observers=observers, record_every=16, progress=False
)
table = solutions.to_polars().with_columns(K=pl.col("lane").map_elements(lambda lane: K[lane % len(K)], pl.Int64))
means = table.group_by("K", "step").mean().sort("K", "step").filter(pl.col("step") > 0)
means = means.with_columns(
    K=pl.when(K=1024).then(pl.lit("∞")).otherwise(pl.col("K").cast(pl.String)),
    accuracy=100 * pl.col("test_accuracy"),
    updates=pl.col("feature_updates"),
)
means.filter(step=STEPS).select("K", "updates", "accuracy", "linearisation_error")

# %% [markdown]
# Below, choose K by a click on the map, or several with Shift; the curves follow. Numbers show where the mouse rests.

# %%
order = [*map(str, K[:-1]), "∞"]
chosen = alt.selection_point(fields=["K"], toggle="event.shiftKey")
tips = ["K", alt.Tooltip("step", title="T"), "updates", alt.Tooltip("accuracy", format=".2f")]
base = alt.Chart(means).encode(opacity=alt.when(chosen).then(alt.value(1.0)).otherwise(alt.value(0.15)), tooltip=tips)
dial = base.mark_rect().encode(
    alt.X("step:O", title="T, steps", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
    alt.Y("K:O", title="K, steps between updates", sort=order),
    alt.Color("accuracy:Q", title="test accuracy, %", scale=alt.Scale(scheme="cividis")),
)
colour = alt.Color("K:N", sort=order, scale=alt.Scale(scheme="viridis"))
line = alt.Chart(means).transform_filter(chosen).mark_line(point=True).properties(width=290)
line = line.encode(
    alt.Y("accuracy", title="test accuracy, %").scale(zero=False), color=colour, order="step", tooltip=tips
)
by_steps = line.encode(alt.X("step", title="T, steps"))
by_updates = line.encode(alt.X("updates", title="feature updates").scale(type="symlog"))
page = (dial.properties(width=660, height=220).add_params(chosen) & (by_steps | by_updates)).resolve_scale(
    color="independent"
)
HTML(page.configure(**altair_config()).to_html(inline=True, fullhtml=False, embed_options={"actions": False}))

# %% [markdown]
# `inline=True` puts Vega into the page, so that the figure works without a network.
