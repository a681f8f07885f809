"""What the timing study concludes: data computed from stored records."""

from pydantic import BaseModel, ConfigDict, Field

from relin.study._result import GridResult, Interval


class Placement(BaseModel):
    """A way of spending a number of feature updates."""

    model_config = ConfigDict(frozen=True)

    budget: int = Field(description="N, the feature updates that may be spent.")
    placement: str = Field(description="early, even, geometric, late or adaptive.")
    schedule: str = Field(description="The schedule's name, as in the outcomes.")
    feature_updates: float = Field(description="Mean number of feature updates that were spent.")
    versus_even: Interval | None = Field(
        description="Test accuracy minus that of the even placement, paired by seed; none for it, or without it."
    )


class TimingResult(GridResult):
    """The answer to *when are feature updates best spent?*"""

    placements: list[Placement]
    best: dict[int, str] = Field(description="For each number of feature updates, the placement of best accuracy.")

    @property
    def answers(self) -> list[str]:
        return [p.schedule for p in self.placements if self.best.get(p.budget) == p.placement]

    @property
    def what_answers(self) -> str:
        return f"the placement of {'lowest' if self.scale.turned else 'highest'} accuracy for each number of updates"
