"""What the studies of the kernel measure besides what all studies do."""

from typing import cast

import jax

import relin as il
from relin.study._analytic import analytic_deviation
from relin.study._kernel_specs import KernelSettings, KernelSpec, WidthSpec
from relin.study._settings import GridSpec


def kernel_observers(spec: GridSpec, validation: tuple[jax.Array, jax.Array]) -> tuple[il.AbstractObserver, ...]:
    """How the kernel moves on the first validation examples, and how far it began from that of infinite width."""
    if not isinstance(spec, KernelSettings):
        return ()
    x, y = (part[: spec.kernel_probe] for part in validation)
    observers: list[il.AbstractObserver] = [il.KernelDrift((x, y), outputs=spec.kernel_outputs)]
    if isinstance(spec, WidthSpec):
        deviation = analytic_deviation(spec.model, spec.model_options, x)
        observers += [] if deviation is None else [deviation]
    return tuple(observers)


def frozen_settings(spec: GridSpec) -> tuple[int, int]:
    """Steps of the lazy training on a kernel that was taken, and how many records apart kernels are taken."""
    spec = cast(KernelSpec, spec)
    return spec.frozen_steps or spec.steps, spec.frozen_every
