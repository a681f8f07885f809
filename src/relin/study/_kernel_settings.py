"""What the studies of the neural tangent kernel are told, and what they measure."""

from typing import Any, Literal

from pydantic import Field

from relin.study._settings import GridSpec, Positive


class KernelSettings(GridSpec, frozen=True):
    """What both studies of the kernel are told."""

    kernel_probe: Positive = Field(128, description="Validation examples on which the kernel is computed.")
    kernel_outputs: Literal["mean", "diagonal", "full"] = Field(
        "mean",
        description="Which kernel of the C outputs: its mean over outputs, every output's own, or between outputs too.",
    )


def kernel_observers(spec: KernelSettings, runner: Any) -> list[Any]:
    """How the kernel moves on the first validation examples."""
    from relin import KernelDrift

    return [KernelDrift(runner.probe(spec.kernel_probe), outputs=spec.kernel_outputs)]
