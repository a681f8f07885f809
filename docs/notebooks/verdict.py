# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A verdict on your own network in ten lines
#
# How rarely can the features of *your* network be updated without loss? Name the network, the data and what to
# compare: a study trains every condition with several seeds, and answers with its statistics.

# %%
import jax
import jax.numpy as jnp

from relin import study


def network(key):
    first, second = jax.random.split(key)
    params = {"w": jax.random.normal(first, (64, 64)) / 8, "v": jax.random.normal(second, (64, 10)) / 8}
    return lambda p, x: jnp.tanh(x.reshape(len(x), -1) @ p["w"]) @ p["v"], params


settings = {"periods": [1, 8, 64, "inf"], "sparse_periods": [], "tolerances": [], "learning_rates": [0.1, 0.3]}
small = {"steps": 200, "batch_size": 32, "seeds": 5, "select_seeds": 2, "num_records": 5, "model_options": {}}
answer = study.Frequency(network=network, data="digits", margin=2.0, **settings, **small).run("verdict", progress=False)
answer

# %% [markdown]
# The answer is an object: its words, its numbers, its records.

# %%
answer.table.select("schedule", "feature_updates", "learning_rate", "test_accuracy", "on_par")

# %%
answer.records.filter(step=200).select("schedule", "learning_rate", "seed", "feature_updates", "test_accuracy").head()

# %% [markdown]
# Five seeds and 200 steps say little about a network that trains for hours; the settings above are small so that this
# page is made in seconds. Records stay in the folder `verdict`: the same cell again reads them, and `answer.report`
# writes the whole page.
