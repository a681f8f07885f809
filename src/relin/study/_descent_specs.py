"""The settings of the studies of full-batch gradient descent on squared error."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from relin.study._settings import Positive, Rate, Seeds, StudySpec

if TYPE_CHECKING:
    import polars as pl

_OF_OPTIMISERS = ("optimiser", "optimiser_options", "momentum", "learning_rates", "decay", "warm_up")


class DescentSpec(StudySpec, frozen=True):
    """What both studies are told. The loss is the squared error to values or one-hot vectors, momentum is 0."""

    seeds: Seeds = Field(5, description="Paired seeds: the same seed is the same initial network for every run.")
    train_limit: Positive | None = Field(100, description="The training set: the first so many training examples.")
    rate: Rate = Field(
        0.5, description="Learning rate η, as a part of the largest stable one at the initial network, 2/λ_max."
    )
    probe_size: Positive = Field(100, description="Test examples on which the predictors of runs are compared.")
    test_limit: Positive = Field(1000, description="Validation and test examples on which accuracy is measured.")
    precision: Literal["float64", "float32"] = Field(
        "float64", description="Of all computations; only in float64 do runs of a million steps coincide."
    )

    @model_validator(mode="before")
    @classmethod
    def _full_batch(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and (given := [n for n in _OF_OPTIMISERS if n in fields]):
            raise ValueError(
                f"{given[0]}: the study {cls.model_fields['study'].default} is about gradient descent on the full "
                "batch at a constant rate; leave it out, or ask another study"
            )
        return fields

    def num_examples(self, records: "pl.DataFrame") -> int:
        """N, of the training set; studies of earlier versions do not say where it was not limited."""
        return records.item(0, "num_examples") if "num_examples" in records.columns else self.train_limit or 0
