"""How many outputs and examples have their features made together."""

import jax
import jax.numpy as jnp
import pytest

from relin.kernel._contract import Gradients, Products, num_outputs, pair_bytes
from relin.kernel._sizes import Sides, chosen

pytestmark = pytest.mark.slow


def features(outputs, size):
    return (Gradients(jax.ShapeDtypeStruct((outputs, size), jnp.float32), ""),)


def sizes(kind="mean", examples=100, columns=None, working_set=10**6, batch_size=None, some=True):
    """For features of 10 outputs and 4 kB."""
    sides = Sides(examples, columns or examples, columns is None)
    return chosen(kind, features(10, 100), 4000, sides, batch_size, working_set, some)


def test_everything_at_once_where_it_fits():
    assert sizes()[:2] == (10, 100)
    assert sizes()[-1] == 1


def test_fewer_outputs_where_then_everything_fits():
    """100 examples of 10, 5, 3, 2 outputs are 400, 200, 120 and 80 kB; three quarters of the working set hold them."""
    assert sizes(working_set=530_000)[:2] == (5, 100)
    assert sizes(working_set=200_000)[:2] == (2, 100)  # four groups of 3 would go back from two outputs twice
    assert sizes(working_set=600_000, columns=90)[:2] == (5, 100)  # two such sides


@pytest.mark.parametrize("without", [{"kind": "full"}, {"batch_size": 20}, {"some": False}])
def test_all_outputs_where_pairs_of_them_are_asked_for_or_the_user_says_how_many_examples(without):
    found = sizes(working_set=150_000, **without)
    assert found.outputs == 10
    assert found.chunk <= 20


@pytest.mark.parametrize("columns", [None, 60])
@pytest.mark.parametrize("kind", ["full", "mean", "diagonal"])
@pytest.mark.parametrize("working_set", [10_000, 50_000, 150_000, 300_000, 900_000])
def test_what_is_held_fits(kind, working_set, columns):
    found = sizes(kind, columns=columns, working_set=working_set)
    passing = 0 if columns is None and found.chunk == 100 else 1
    assert (found.held + passing) * found.chunk * found.outputs * 400 <= working_set
    assert 1 <= found.block <= found.chunk
    assert 1 <= found.at_once <= found.chunk


def test_one_example_and_the_other_side_are_always_held():
    assert sizes("full", working_set=1)[1:] == (1, 1, 1, 1)
    assert sizes("mean", working_set=1).outputs == 10  # nothing is gained by fewer


def test_pairs_of_positions_need_memory():
    def products(positions):
        shapes = (positions, 8), (10, positions, 6)
        inputs, cotangents = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
        return (Products((inputs,), cotangents, ("",), 10),)

    assert num_outputs(products(3)) == 10
    assert pair_bytes(products(1), "full") == 4 * 3 * 100
    assert pair_bytes(products(3), "full") == 4 * (3 * 100 + 2 * 3 * (2 * 3 + 10 * 6))
