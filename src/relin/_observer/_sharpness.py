"""The curvature of the linearised problem, which bounds the learning rate."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from relin._core.context import Context
from relin._core.types import Inputs, State, Targets
from relin._observer._base import AbstractObserver
from relin.kernel._curvature import largest_curvature, noise


class Sharpness(AbstractObserver):
    """λ_max of JᵀHJ/N, the Hessian in δ of the linearised network's mean loss on a probe set, as `sharpness`.

    J is the Jacobian at the anchor and H the loss's Hessian in the outputs f̄_t. Gradient descent on the linearised
    problem is stable at learning rates below 2/λ_max, with momentum β below 2 (1 + β)/λ_max. Found by Lanczos' method
    (Golub & Van Loan 2013, section 10.1), which approaches it from below.

    **Arguments:**

    - `probe`: inputs and targets `(x, y)`; N of them.
    - `tolerance`: the iteration ends when ‖G v − λ v‖ is at most this part of λ, whose error is about its square.
    - `max_iterations`: each costs about as much as two steps on the probe.
    """

    probe: tuple[Inputs, Targets]
    tolerance: float = eqx.field(static=True, default=1e-3)
    max_iterations: int = eqx.field(static=True, default=100)

    def __init__(self, probe: tuple[Inputs, Targets], tolerance: float = 1e-3, max_iterations: int = 100):
        if not tolerance > 0:
            raise ValueError(f"`tolerance` must be above 0, got {tolerance}; 1e-3 is usual.")
        if not max_iterations >= 1:
            raise ValueError(f"`max_iterations` must be at least 1, got {max_iterations}; 100 is usual.")
        self.probe = jax.tree.map(jnp.asarray, probe)
        self.tolerance, self.max_iterations = tolerance, max_iterations

    @property
    def labelled(self) -> dict[str, tuple[Inputs, Targets]]:
        return {"probe": self.probe}

    def compute(self, context: Context, state: State) -> tuple[dict[str, Shaped[Array, ""]], State]:
        start = noise(jax.random.key(0), context.anchor)
        options = {"tolerance": self.tolerance, "max_products": self.max_iterations}
        return {"sharpness": largest_curvature(context, self.probe, start, **options).value}, state
