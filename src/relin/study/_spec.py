"""The settings of a study: a typed, validated file."""

import difflib
import json
import math
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from relin.datasets import names


class SpecError(ValueError):
    """A study's settings are wrong; the message says which, and what is allowed."""


def _read_period(value: Any) -> Any:
    if isinstance(value, str) and value.lower() in ("inf", "∞", "infinity"):
        return math.inf
    return value


Period = Annotated[
    float,
    BeforeValidator(_read_period),
    PlainSerializer(lambda k: "inf" if math.isinf(k) else int(k), return_type=int | str, when_used="json"),
]
Positive = Annotated[int, Field(ge=1, le=1_000_000_000)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class FrequencySpec(BaseModel):
    """How rarely can features be updated without loss?"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: Literal["frequency"] = Field("frequency", description="Which question the study answers.")
    data: str = Field("digits", description="Data set, one of those `relin data` lists.")
    model: str = Field("mlp", description="Network: mlp, cnn, lenet5 or resnet18.")
    model_options: dict[str, Any] = Field(default_factory=dict, description="Options of the network, such as width.")
    train_limit: Positive | None = Field(None, description="Use only the first so many training examples.")
    loss: Literal["cross-entropy", "squared-error"] = Field("cross-entropy", description="What is minimised.")
    steps: Positive = Field(1000, description="Training steps T of a run.")
    batch_size: Positive = Field(64, description="Examples a step.")
    periods: list[Period] = Field(
        [1, 4, 16, 64, 256, math.inf], description='Periods K to compare; 1 is ordinary training, "inf" lazy training.'
    )
    tolerances: list[Rate] = Field([], description="Tolerances of the adaptive schedule WhenError to show beside them.")
    check_every: Positive = Field(10, description="Steps between two looks at the linearisation error.")
    learning_rates: list[Rate] = Field(
        [0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003],
        description="Learning rates offered to every schedule; each gets the best of them on validation data.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    decay: Literal["linear", "cosine", "none"] = Field("linear", description="How the rate falls to 0 over a run.")
    comparison: Literal["equal-steps", "equal-distance"] = Field(
        "equal-steps",
        description="Whether every rate takes T steps, or smaller rates take more: T · reference_rate / rate.",
    )
    reference_rate: Rate | None = Field(
        None,
        description="With equal-distance: the rate that takes T steps; smaller ones take more, up to max_steps.",
    )
    max_steps: Positive = Field(10_000, description="With equal-distance: the most steps a run may take.")
    seeds: int = Field(
        10, ge=2, description="Paired seeds: the same seed is the same initial network and batches for every K."
    )
    select_seeds: Positive = Field(3, description="Of these, how many take part in choosing the learning rates.")
    finalists: Positive | None = Field(
        None, description="Only so many of the best rates, by the first seed, go on to the other select_seeds."
    )
    num_records: Positive = Field(10, description="Records a run, evenly spaced.")
    probe_size: Positive = Field(256, description="Validation examples on which the linearisation error is measured.")
    margin: float = Field(1.0, gt=0, lt=100, description="Largest acceptable loss of accuracy, in percentage points.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the one-sided bound against the margin.")

    @field_validator("data")
    @classmethod
    def _known(cls, data: str) -> str:
        if data not in names():
            raise ValueError(f"the data sets are {', '.join(names())}")
        return data

    @field_validator("periods")
    @classmethod
    def _whole_periods(cls, periods: list[float]) -> list[float]:
        for k in periods:
            if not (k >= 1 and (math.isinf(k) or float(k).is_integer())):
                raise ValueError(f'a period must be a whole number of at least 1, or "inf", got {k:g}')
        if 1 not in periods:
            raise ValueError("the periods must include 1, ordinary training, to compare with")
        return sorted(set(periods))

    @field_validator("learning_rates", "tolerances")
    @classmethod
    def _sorted(cls, values: list[float]) -> list[float]:
        return sorted(set(values), reverse=True)

    @model_validator(mode="after")
    def _long_enough(self) -> "FrequencySpec":
        if self.comparison == "equal-distance" and self.max_steps < self.steps:
            raise ValueError(f"max_steps must be at least steps, {self.steps}, got {self.max_steps}")
        return self

    @field_validator("learning_rates")
    @classmethod
    def _some(cls, values: list[float]) -> list[float]:
        if not values:
            raise ValueError("at least one learning rate is needed")
        return values

    def steps_at(self, rate: float) -> int:
        """The number of steps of a run at a learning rate."""
        if self.comparison == "equal-steps":
            return self.steps
        reference = self.reference_rate or max(self.learning_rates)
        return max(1, min(self.max_steps, round(self.steps * max(1.0, reference / rate))))


def shipped() -> list[str]:
    """The names of the studies that come with relin."""
    folder = resources.files("relin.study") / "specs"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_spec(name: str, data: str | None = None, overrides: dict[str, Any] | None = None) -> FrequencySpec:
    """The settings of a shipped study, or of a file, with what was asked for instead.

    **Arguments:**

    - `name`: a shipped study's name, the path of a TOML file, or of the `spec.json` in a study's folder.
    - `data`: the data set; the file's `[by_data.NAME]` settings for it apply.
    - `overrides`: fields to set last.

    **Raises:** `SpecError` if there is no such study, or its settings are wrong.
    """
    fields = _read(name)
    overrides = overrides or {}
    data = data or overrides.get("data") or fields.get("data", "digits")
    by_data = _by_data(name, fields.pop("by_data", {}))
    if overrides.get("model", fields.get("model")) != fields.get("model"):
        fields.pop("model_options", None)  # they belong to the file's network
    special = by_data.get(data, {}) if isinstance(data, str) else {}
    merged = {**fields, **special, "data": data, **overrides}
    try:
        return FrequencySpec.model_validate(merged)
    except ValidationError as error:
        raise SpecError(f"The settings of study {name} are wrong: {_problems(error)}.") from None


def _read(name: str) -> dict[str, Any]:
    path = Path(name)
    if name in shipped():
        text = (resources.files("relin.study") / "specs" / f"{name}.toml").read_text(encoding="utf-8")
    elif path.suffix in (".toml", ".json"):
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise SpecError(f"The study file {name} cannot be read ({error.strerror}); check its path.") from None
        except UnicodeDecodeError:
            raise SpecError(f"The study file {name} is not text in UTF-8; save it as such.") from None
    else:
        raise SpecError(
            f"There is no study named {name!r}; name one of {', '.join(shipped())}, or a file ending in .toml."
        )
    try:
        fields = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        kind = path.suffix.removeprefix(".").upper()
        raise SpecError(f"The study file {name} is not valid {kind} ({error}); correct it there.") from None
    if not isinstance(fields, dict):
        raise SpecError(f"The study file {name} holds no settings; copy the spec.json of a study's folder.")
    return fields


def _by_data(name: str, by_data: Any) -> dict[str, dict[str, Any]]:
    """The settings for single data sets, each a table under a known name."""
    tables = by_data if isinstance(by_data, dict) else {}
    wrong = [key for key, table in tables.items() if key not in names() or not isinstance(table, dict)]
    if wrong or not isinstance(by_data, dict):
        raise SpecError(
            f"The settings of study {name} are wrong: by_data holds a table for each data set, such as "
            f"[by_data.digits], got {', '.join(wrong) or repr(by_data)}; the data sets are {', '.join(names())}."
        )
    return tables


def _problems(error: ValidationError) -> str:
    parts = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        reason = problem["msg"].removeprefix("Value error, ")
        if not place:  # a rule about several settings names them itself
            parts.append(reason)
        elif problem["type"] == "extra_forbidden":
            parts.append(f"there is no setting {place}{_closest(place)}")
        else:
            parts.append(f"{place}: {reason} (got {problem['input']!r})")
    return "; ".join(parts)


def _closest(name: str) -> str:
    fields = list(FrequencySpec.model_fields)
    near = difflib.get_close_matches(name, fields, n=1)
    return f" (did you mean {near[0]}?)" if near else f" (the settings are {', '.join(fields)})"
