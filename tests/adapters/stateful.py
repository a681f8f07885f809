"""One small network with BatchNorm and dropout in every framework, and data for it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

import relin as il

KEY = jax.random.key(3)
STEPS = 20
RNG = np.random.default_rng(0)
BATCHES = [(RNG.normal(size=(16, 8)).astype(np.float32), RNG.integers(0, 3, 16)) for _ in range(STEPS)]
FRAMEWORKS = ("nnx", "linen", "equinox")


def loss_of(outputs, y):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()


class NNXNetwork(nnx.Module):
    def __init__(self, dtype=jnp.float32):
        rngs = nnx.Rngs(0, dropout=1)
        types = {"dtype": dtype, "param_dtype": dtype}
        self.hidden, self.norm = nnx.Linear(8, 32, rngs=rngs, **types), nnx.BatchNorm(32, rngs=rngs, **types)
        self.norm.mean, self.norm.var = nnx.BatchStat(jnp.zeros(32, dtype)), nnx.BatchStat(jnp.ones(32, dtype))
        self.dropout, self.readout = nnx.Dropout(0.3, rngs=rngs), nnx.Linear(32, 3, rngs=rngs, **types)

    def __call__(self, x):
        return self.readout(self.dropout(nnx.relu(self.norm(self.hidden(x)))))


class LinenNetwork(linen.Module):
    dtype: jnp.dtype = jnp.float32

    @linen.compact
    def __call__(self, x, frozen, deterministic):
        types = {"dtype": self.dtype, "param_dtype": self.dtype}
        hidden = linen.relu(linen.BatchNorm(use_running_average=frozen, **types)(linen.Dense(32, **types)(x)))
        return linen.Dense(3, **types)(linen.Dropout(0.3, deterministic=deterministic)(hidden))


class EquinoxNetwork(eqx.Module):
    hidden: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    readout: eqx.nn.Linear

    def __init__(self, dtype=jnp.float32):
        first, second = jax.random.split(jax.random.key(0))
        self.hidden = eqx.nn.Linear(8, 32, key=first, dtype=dtype)
        self.norm = eqx.nn.BatchNorm(32, "batch", mode="batch", dtype=dtype)
        self.dropout, self.readout = eqx.nn.Dropout(0.3), eqx.nn.Linear(32, 3, key=second, dtype=dtype)

    def __call__(self, x, state, *, key=None):
        x, state = self.norm(self.hidden(x), state)
        return self.readout(self.dropout(jax.nn.relu(x), key=key)), state


EVALUATED = {"frozen": True, "deterministic": True}


def linen_variables(dtype=jnp.float32):
    variables = LinenNetwork(dtype).init(jax.random.key(0), jnp.zeros((2, 8), dtype), **EVALUATED)
    return jax.tree.map(lambda a: a.astype(dtype), variables)


def network(framework, *, statistics="batch", dropout=True, dtype=jnp.float32):
    """`apply` and `params` in a mode."""
    if framework == "nnx":
        return il.from_nnx(NNXNetwork(dtype), statistics=statistics, dropout=dropout)
    if framework == "linen":
        own = LinenNetwork(dtype), linen_variables(dtype)
        if statistics == "frozen" and not dropout:
            return il.from_linen(*own, **EVALUATED)
        training = {"frozen": statistics == "frozen", "deterministic": not dropout}
        mutable = ["batch_stats"] if statistics == "batch" else []
        rngs = {"dropout": KEY} if dropout else {}
        return il.from_linen(*own, **EVALUATED, training=training, mutable=mutable, rngs=rngs)
    module, state = eqx.nn.make_with_state(EquinoxNetwork)(dtype)
    return il.from_equinox(module, state=state, statistics=statistics, dropout=dropout, key=KEY if dropout else None)


def problem(apply):
    return il.Problem(apply, il.CrossEntropy())
