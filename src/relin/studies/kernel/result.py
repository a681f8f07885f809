"""What the kernel study concludes: data computed from stored records."""

from pydantic import BaseModel, ConfigDict, Field

from relin.study._kernel import Constancy
from relin.study._result import GridResult, Interval


class KernelOutcome(BaseModel):
    """The kernel at the end of a schedule's runs at its learning rate, over the seeds that trained.

    The intervals are none where fewer than two seeds are left, or where a metric is not defined.
    """

    model_config = ConfigDict(frozen=True)

    schedule: str = Field(description="The schedule's name, as in the outcomes.")
    num_seeds: int = Field(description="Runs at the chosen rate that trained; the kernel's numbers are over them.")
    distance: Interval | None = Field(description="1 − ⟨K, K₀⟩/(‖K‖‖K₀‖) to the kernel at step 0.")
    change: Interval | None = Field(description="‖K − K₀‖/‖K₀‖.")
    cka: Interval | None = Field(description="Centred alignment with the kernel at step 0.")
    alignment: Interval | None = Field(description="Centred alignment with the targets.")
    effective_rank: Interval | None = Field(description="exp of the entropy of the normalised eigenvalues.")


class FrozenKernel(BaseModel):
    """How good lazy training is on the kernels of one schedule, by the step at which they were taken."""

    model_config = ConfigDict(frozen=True)

    schedule: str = Field(description="Whose kernels; its name, as in the outcomes.")
    learning_rate: float | None = Field(description="Of the schedule's own runs.")
    num_seeds: int = Field(description="Seeds of which kernels were taken.")
    steps: list[int] = Field(description="At which a kernel was taken, the first of them 0.")
    accuracy: list[Interval] = Field(description="Test accuracy of lazy training on each, in the order of the steps.")
    gain: Interval = Field(description="Accuracy on the last kernel minus that on the first, paired by seed.")


class KernelResult(GridResult):
    """The answer to *does the NTK stay constant?*"""

    kernels: list[KernelOutcome] = Field(description="In the order of the outcomes.")
    initial_alignment: Interval | None = Field(description="Alignment with the targets of the kernel at step 0.")
    initial_rank: Interval | None = Field(description="Effective rank of the kernel at step 0.")
    constancy: Constancy
    frozen: list[FrozenKernel] = Field(description="Of the schedules of which kernels were taken on the way.")

    def kernel(self, schedule: str) -> KernelOutcome | None:
        """The kernel of a schedule by its name, if it was tested."""
        return next((kernel for kernel in self.kernels if kernel.schedule == schedule), None)
