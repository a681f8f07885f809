"""PyTorch's recurrent layers as a scan: torchax writes out every step, and compiles longer for longer sequences."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import torch
from jaxtyping import Array, Float
from torch.utils import _pytree
from torchax.tensor import Tensor
from torchax.view import View

Carry = tuple[Float[Array, "batch width"], ...]
Weights = tuple[Array, ...]
"""W_ih, W_hh, b_ih, b_hh of a layer in one direction, and W_hr where the state is projected."""

FUNCTIONS = frozenset((torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu))


def as_scan(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any] | None:
    """The same function of the same arguments, by a scan; none for packed sequences, and for states made on the CPU."""
    is_packed = len(args) != 9 or bool(kwargs) or not isinstance(args[3], bool)
    if is_packed or not all(isinstance(leaf, Tensor | View) for leaf in _pytree.tree_leaves(args[:3])):
        return None
    step = _STEPS[func.__name__]

    def run(
        x: Any,
        states: Any,
        weights: Any,
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Any, ...]:
        """The outputs of the last layer, and the last states of all."""
        states = [states] if func is not torch.lstm else list(states)
        directions = 1 + bidirectional
        layers = _layers([weight.jax() for weight in weights], has_biases, num_layers * directions)
        x, last = x.transpose(0, 1) if batch_first else x, []
        for layer in range(num_layers):
            sides = []
            for direction in range(directions):
                place = layer * directions + direction
                carry = tuple(state[place].jax() for state in states)
                carry, outputs = _scan(step, next(layers), carry, x.jax(), reverse=bool(direction))
                sides.append(outputs)
                last.append(carry)
            x = _tensor(x, jnp.concatenate(sides, axis=-1))
            if dropout and train and layer < num_layers - 1:
                x = torch.nn.functional.dropout(x, dropout)
        ends = [_tensor(x, jnp.stack(parts)) for parts in zip(*last, strict=True)]
        return x.transpose(0, 1) if batch_first else x, *ends

    return run


def _tensor(like: Any, value: Array) -> Any:
    return like._env.j2t_iso(value)


def _layers(weights: list[Array], has_biases: bool, count: int) -> Iterator[Weights]:
    """The weights by layer and direction; missing biases are zero."""
    each = len(weights) // count
    for start in range(0, len(weights), each):
        own = weights[start : start + each]
        if not has_biases:
            own[2:2] = [jnp.zeros(len(own[0]), own[0].dtype)] * 2
        yield tuple(own)


def _scan(
    step: Callable[[Array, Carry, Weights], Carry],
    weights: Weights,
    carry: Carry,
    x: Float[Array, "time batch inputs"],
    *,
    reverse: bool,
) -> tuple[Carry, Float[Array, "time batch width"]]:
    """All states of one layer in one direction: what the inputs contribute is computed for all steps at once."""

    def body(carry: Carry, inputs: Array) -> tuple[Carry, Array]:
        carry = step(inputs, carry, weights)
        return carry, carry[0]

    return jax.lax.scan(body, carry, x @ weights[0].T + weights[2], reverse=reverse)


def _lstm(inputs: Array, carry: Carry, weights: Weights) -> Carry:
    (h, c), (_, recurrent, _, bias, *projection) = carry, weights
    i, f, g, o = jnp.split(inputs + h @ recurrent.T + bias, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h @ projection[0].T if projection else h), c


def _gru(inputs: Array, carry: Carry, weights: Weights) -> Carry:
    (h,), (_, recurrent, _, bias) = carry, weights
    (x_r, x_z, x_n), (h_r, h_z, h_n) = (jnp.split(v, 3, axis=-1) for v in (inputs, h @ recurrent.T + bias))
    update = jax.nn.sigmoid(x_z + h_z)
    new = jnp.tanh(x_n + jax.nn.sigmoid(x_r + h_r) * h_n)
    return ((1 - update) * new + update * h,)


def _elman(activation: Callable[[Array], Array]) -> Callable[[Array, Carry, Weights], Carry]:
    def step(inputs: Array, carry: Carry, weights: Weights) -> Carry:
        (h,), (_, recurrent, _, bias) = carry, weights
        return (activation(inputs + h @ recurrent.T + bias),)

    return step


_STEPS = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _elman(jnp.tanh), "rnn_relu": _elman(jax.nn.relu)}
