"""Iterative linearised training on JAX.

Train the first-order Taylor expansion of a network, and re-linearise it only every K steps: K is the dial between lazy
training (K = ∞, no feature learning) and ordinary training (K = 1).
"""

from typing import TYPE_CHECKING

from relin._common.lazy import names_of
from relin._common.xla import avoid_wrong_sums

if TYPE_CHECKING:
    from relin._public import *  # noqa: F403

    __version__: str

avoid_wrong_sums()
__getattr__, __dir__ = names_of("relin._public")
