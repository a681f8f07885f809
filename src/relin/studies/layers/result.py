"""What the layers study concludes: data computed from stored records."""

from pydantic import BaseModel, ConfigDict, Field

from relin.study._result import GridResult, Interval


class LayerOutcome(BaseModel):
    """What a layer's feature updates bring."""

    model_config = ConfigDict(frozen=True)

    layer: str = Field(description="The beginning of its parameters' names.")
    rich: str = Field(description="The schedule, as in the outcomes, with which it alone is updated at every step.")
    lazy: str = Field(description="That with which it alone is never updated.")
    gain: Interval | None = Field(
        description="Test accuracy of `rich` minus that without feature learning, paired by seed; none without that."
    )
    loss: Interval | None = Field(description="Test accuracy of `lazy` minus ordinary training's, paired by seed.")


class LayersResult(GridResult):
    """The answer to *which layers need feature updates?*"""

    layers: list[LayerOutcome]
