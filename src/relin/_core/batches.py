"""Which examples each step sees: deterministic in the key, the same for every K and every solver."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from relin._core import check as _check
from relin._core.types import Key, State, Step


class AbstractBatches(eqx.Module):
    """Draws the examples of each step.

    `plan` does, once for many steps, what would be slow inside a loop; `indices` reads one step's examples
    from it.

    The examples of a step follow from the key and the step alone, so that a run that is resumed sees the same batches.
    """

    @abc.abstractmethod
    def check(self, num_examples: int) -> None:
        """Raises `ValueError` if batches cannot be drawn from so many examples."""

    def planned_per_step(self, num_examples: int) -> int:
        """How many entries of `plan` one step takes."""
        return 0

    @abc.abstractmethod
    def plan(self, key: Key, num_examples: int, start: Step, count: int) -> State:
        """What the steps `start`, …, `start + count − 1` need; `count` is static."""

    @abc.abstractmethod
    def indices(self, plan: State, step: Step) -> Int[Array, " batch"] | None:
        """The examples of a step, shape `(batch,)`; `None` for all of them."""


class Shuffled(AbstractBatches):
    """A new random order each epoch, cut into batches; what remains at the end of an epoch is left out of it.

    **Arguments:**

    - `batch_size`: examples of a batch, at most those of the data; N examples make ⌊N / batch_size⌋ batches an epoch.

    **Raises:** `ValueError` for a size below 1, and before training for one above N.
    """

    batch_size: int

    def __check_init__(self):
        _check.count(self.batch_size, "batch_size", "pass None for the full batch")

    def check(self, num_examples: int) -> None:
        if self.batch_size > num_examples:
            raise ValueError(
                f"`batch_size` must be at most the number of examples, {num_examples}, got {self.batch_size}; "
                "pass a smaller one, or None for the full batch."
            )

    def planned_per_step(self, num_examples: int) -> int:
        return -(-num_examples // (num_examples // self.batch_size))

    def plan(self, key: Key, num_examples: int, start: Step, count: int) -> State:
        per_epoch = num_examples // self.batch_size
        first = start // per_epoch
        num_epochs = (count + per_epoch - 2) // per_epoch + 1
        epochs = first + jnp.arange(num_epochs)
        orders = jax.vmap(lambda e: _permutation(jax.random.fold_in(key, e), num_examples))(epochs)
        batches = orders[:, : per_epoch * self.batch_size].reshape(num_epochs * per_epoch, self.batch_size)
        return first * per_epoch, batches

    def indices(self, plan: State, step: Step) -> Int[Array, " batch"]:
        start, batches = plan
        return batches[step - start]


class WithReplacement(AbstractBatches):
    """Each step draws its examples independently and uniformly, with replacement.

    **Arguments:**

    - `batch_size`: examples of a batch; there may be more than in the data.

    **Raises:** `ValueError` for a size below 1.
    """

    batch_size: int

    def __check_init__(self):
        _check.count(self.batch_size, "batch_size", "pass None for the full batch")

    def check(self, num_examples: int) -> None:
        pass

    def plan(self, key: Key, num_examples: int, start: Step, count: int) -> State:
        return key, jnp.asarray(num_examples)

    def indices(self, plan: State, step: Step) -> Int[Array, " batch"]:
        key, num_examples = plan
        return jax.random.randint(jax.random.fold_in(key, step), (self.batch_size,), 0, num_examples)


class FullBatch(AbstractBatches):
    """Every step sees every example, in the data's order."""

    def check(self, num_examples: int) -> None:
        pass

    def plan(self, key: Key, num_examples: int, start: Step, count: int) -> State:
        return ()

    def indices(self, plan: State, step: Step) -> None:
        return None


def _permutation(key: Key, size: int) -> Int[Array, " size"]:
    """`jax.random.permutation(key, size)`, the same numbers, about four times faster on CPU.

    XLA's CPU sort of one array of integers is fast, that of keys with values calls a comparator; hence each random word
    and its place are sorted as one 64-bit integer.
    """
    order = jnp.arange(size, dtype=jnp.int32)
    for _ in range(math.ceil(3 * math.log(size) / math.log(2**32 - 1))):  # until equal words hardly matter
        key, subkey = jax.random.split(key)
        words = jax.random.bits(subkey, (size,), jnp.uint32)
        with jax.enable_x64(True):
            place = jnp.arange(size, dtype=jnp.uint64)
            pairs = jax.lax.sort((words.astype(jnp.uint64) << jnp.uint64(32)) | place, is_stable=False)
            places = pairs.astype(jnp.uint32)
        order = order[places]
    return order
