"""What the essential study concludes: data computed from stored records."""

from pydantic import Field

from relin.study._result import GridResult
from relin.study._schedules import After, Until


class EssentialResult(GridResult):
    """The answer to *is feature learning essential, and when?*"""

    enough_updates: int | None = Field(
        description="Fewest updates at the start after which features may stay frozen, together with every larger "
        "number tested; none if none tested is enough."
    )
    latest_start: int | None = Field(
        description="Latest step at which features may begin to move, together with every earlier one tested; none if "
        "none tested is early enough."
    )

    @property
    def answers(self) -> list[str]:
        found = ((Until, self.enough_updates), (After, self.latest_start))
        return [kind(number).name for kind, number in found if number is not None]

    @property
    def what_answers(self) -> str:
        return "the fewest updates and the latest start on par together with those between"
