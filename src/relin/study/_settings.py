"""The settings that all studies share."""

import json
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from relin._common.words import listed
from relin.datasets._names import FORMS, FUNCTION_FORMS, is_known, names, own
from relin.models._names import OPTIONS
from relin.study import _optimisers
from relin.study._code import digest_of, is_code, is_place, load_measure, name_of
from relin.study._condition import Condition, parse_condition
from relin.study._measure import ACCURACY
from relin.study._named import LARGEST
from relin.study._optimisers import Decay, NamedOptimiser, Optimiser, OwnOptimiser, RateCourse

Comparison = Literal["equal-steps", "equal-distance"]
"""Whether all runs take T steps, or runs at smaller learning rates more, so that rate × steps is the same."""


def _read_period(value: Any) -> Any:
    if isinstance(value, str) and value.lower() in ("inf", "∞", "infinity"):
        return math.inf
    return value


Period = Annotated[
    float,
    BeforeValidator(_read_period),
    PlainSerializer(lambda k: "inf" if math.isinf(k) else int(k), return_type=int | str, when_used="json"),
]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
SMALLEST_RATE, LARGEST_RATE = 1e-9, 1e6
Rate = Annotated[float, Field(ge=SMALLEST_RATE, le=LARGEST_RATE, allow_inf_nan=False)]
Seeds = Annotated[int, Field(ge=2, le=1000)]
Entry = TypeVar("Entry")
Several = Annotated[list[Entry], Field(max_length=100)]


STORED = {"stored": True}
"""The context in which settings are validated that were stored: nothing is looked up for them."""


class StudySpec(BaseModel, extra="forbid", frozen=True):
    """What every study is told: data, network, seeds."""

    belong_to: ClassVar[Mapping[str, tuple[str, ...]]] = {"model": ("model_options",)}
    """Settings that are of no use where the one that they belong to is another one than a file's."""
    own_code: ClassVar[tuple[str, ...]] = ("data", "model")
    """The settings that may name code of the user's own."""

    choosing: ClassVar[frozenset[str]] = frozenset()
    """The settings that say which runs there are and how they are compared, not what a run of them is: studies that
    differ in no other can share runs."""

    beyond_outcomes: ClassVar[str | None] = "measurements of its own"
    """What the study needs of its runs beside how they came out; none where runs of any loop can answer it."""

    study: str = Field(description="Which question the study answers.")
    data: str = Field(
        "digits",
        description=f"Data set, one of those `relin data` lists, a generated function such as parity-20-3, or your "
        f"own: {FORMS}; or a function of your own, FILE.py:NAME or package.module:NAME.",
    )
    model: str = Field(
        "mlp",
        description="Network: mlp, cnn, lenet5, vgg11, resnet18, wide-resnet, vit or gpt; or a function of your own "
        "that builds one from a key or a seed, FILE.py:NAME or package.module:NAME.",
    )
    model_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of the network, such as width, or further arguments of your own function.",
    )
    digests: dict[str, str] = Field(
        default_factory=dict,
        description="What identifies code and data of your own, by the setting that names it; filled in by itself.",
    )
    train_limit: Positive | None = Field(None, description="Use only the first so many training examples.")
    seeds: Seeds = Field(
        10, description="Paired seeds: the same seed is the same initial network and batches for every schedule."
    )

    @property
    def data_name(self) -> str:
        """As records and verdicts say it: of code of one's own, what is named without where it is."""
        return self.data if is_known(self.data) else name_of(self.data)

    @property
    def model_name(self) -> str:
        """The same of the network."""
        return self.model if self.model in OPTIONS else name_of(self.model)

    @property
    def axis(self) -> str | None:
        """What is compared beside schedules, such as the width, as a column of the records; none for most."""
        return None

    @field_validator("data")
    @classmethod
    def _known(cls, data: str) -> str:
        if not (is_known(data) or is_code(data)):
            raise ValueError(
                f"the data sets are {listed(names())}; generated functions: {FUNCTION_FORMS}; and your own: {FORMS}; a "
                "function of your own is named FILE.py:NAME"
            )
        return data

    @field_validator("model")
    @classmethod
    def _known_network(cls, model: str) -> str:
        if model not in OPTIONS and not is_code(model):
            raise ValueError(f"the networks are {listed(OPTIONS)}; a function of your own is named FILE.py:NAME")
        return model

    @model_validator(mode="after")
    def _known_options(self) -> Self:
        known = OPTIONS.get(self.model)
        if known is not None and (unknown := sorted(self.model_options.keys() - set(known))):
            raise ValueError(
                f"model_options: {self.model} has no option {listed(unknown)}; its options are {listed(known)}"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _identified(cls, fields: Any, info: ValidationInfo) -> Any:
        """With the digests of code and data of one's own, where they are not there yet; what is stored is as it was."""
        if info.context is STORED or not isinstance(fields, dict) or not isinstance(fields.get("digests", {}), dict):
            return fields
        digests = dict(fields.get("digests", {}))
        for name in cls.own_code:
            value = fields.get(name)
            if name in digests or not isinstance(value, str):
                continue
            if name == "data" and is_known(value):
                digests |= {} if (digest := digest_of_files(value)) is None else {name: digest}
            elif is_place(value) and value not in OPTIONS:
                digests[name] = digest_of(value)
        return {**fields, "digests": digests} if digests else fields


def digest_of_files(data: str) -> str | None:
    """What identifies the files of one's own data by their name; none for the named sets, whose files are published."""
    if own(data) is None:
        return None
    from relin.datasets._identity import identity

    return f"sha256:{identity(data)['sha256']}"


class Place(NamedTuple):
    """Where on the axis of a study settings are."""

    axis: str
    value: int


class GridSpec(StudySpec, frozen=True):
    """What a study is told that compares schedules, each at the learning rate that validation data choose for it."""

    belong_to: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **StudySpec.belong_to,
        "optimiser": ("momentum", "optimiser_options", "learning_rates"),
        "measure": ("margin",),
    }
    choosing: ClassVar[frozenset[str]] = frozenset(
        ("seeds", "methods", "learning_rates", "follow_edges", "select_seeds", "finalists", "margin", "confidence")
    )
    takes_measure: ClassVar[bool] = False
    """Whether runs may be judged by a measure of the user's own; results are then shown by their `scale`."""
    no_measure: ClassVar[str] = ""
    """Why not, as the end of a sentence, where there is more to it."""
    own_code: ClassVar[tuple[str, ...]] = ("data", "model", "optimiser", "measure")
    _place: Place | None = PrivateAttr(None)

    loss: Literal["cross-entropy", "squared-error"] = Field("cross-entropy", description="What is minimised.")
    steps: Positive = Field(1000, description="Training steps T of a run.")
    batch_size: Positive = Field(64, description="Examples a step.")
    methods: Several[str] = Field(
        [],
        description="More schedules to show beside, with modifiers: every-64+clip-1, when-error-0.1, geometric-8, "
        "equal-time-8.",
    )
    layers: Several[str] = Field(
        [],
        description="Beginnings of the parameters' names, one for each layer or group of layers, for the schedules "
        "rich-I and lazy-I, which treat layer I, counted from 0, apart.",
    )
    check_every: Positive = Field(10, description="Steps between two looks of an adaptive schedule.")
    optimiser: str = Field(
        _optimisers.DEFAULT,
        description=f"What trains every run: {listed(_optimisers.names())}; by default SGD with momentum; or a "
        "function of the learning rate of your own, FILE.py:NAME or package.module:NAME.",
    )
    momentum: float | None = Field(
        None,
        ge=0,
        lt=1,
        validate_default=True,
        description="Momentum β of the optimisers sgd, 0, and momentum, 0.9 by default; the others have none.",
    )
    optimiser_options: dict[str, Any] = Field(
        default_factory=dict,
        validate_default=True,
        description="Options of the other optimisers, as Optax names them, such as b1 and weight_decay.",
    )
    learning_rates: Several[Rate] = Field(
        None,  # pyright: ignore
        validate_default=True,
        description="Learning rates offered to every schedule, by default the optimiser's own; each schedule gets the "
        "best of them on validation data.",
    )
    follow_edges: int = Field(
        0,
        ge=0,
        le=20,
        description="How many more rates a schedule is offered, one after the other, as long as its best one is the "
        "largest or smallest it was offered; each as far beyond as the outermost two are apart.",
    )
    decay: Decay = Field("linear", description="How the rate falls to 0 over a run, after its warm-up.")
    warm_up: float = Field(
        0.0,
        ge=0,
        le=0.99,
        description="Share of a run's steps in which the rate first rises in a line to its full value.",
    )
    select_seeds: Positive = Field(3, description="Of these, how many take part in choosing the learning rates.")
    finalists: Positive | None = Field(
        None, description="Only so many of the best rates, by the first seed, go on to the other select_seeds."
    )
    num_records: Positive = Field(10, le=10_000, description="Records a run, evenly spaced.")
    probe_size: Positive = Field(256, description="Validation examples on which the linearisation error is measured.")
    measure: str = Field(
        ACCURACY,
        description="What runs are judged by: accuracy, in whose place R² stands where the targets are values; or a "
        "relin.study.Measure of your own, FILE.py:NAME or package.module:NAME.",
    )
    margin: float = Field(
        1.0,
        gt=0,
        le=1e12,
        description="Largest acceptable loss of accuracy, in percentage points; of a measure of your own in its unit, "
        "by default the measure's own.",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the one-sided bound against the margin.")

    @property
    def place(self) -> Place | None:
        """Of one of the `cells` of a study with an axis."""
        return self._place

    def at(self, value: int, **settings: Any) -> Self:
        """The settings of the cell at a value of the axis."""
        assert self.axis is not None
        cell = self.model_copy(update=settings)
        cell._place = Place(self.axis, value)  # pyright: ignore[reportAttributeAccessIssue]
        return cell

    @classmethod
    def asked_by(cls, conditions: Sequence[Condition], totals: Sequence[int]) -> dict[str, Any]:
        """The settings of which these are the `own_conditions`, as far as they can be; and of these numbers of steps.

        **Raises:** `ValueError` where they are no such study; the message is the end of *needs …*.
        """
        raise NotImplementedError(cls)

    @abstractmethod
    def own_conditions(self) -> list[Condition]:
        """What the question itself compares, ordinary training among it."""

    def all_conditions(self) -> list[Condition]:
        """All schedules of the study, each once."""
        return list(dict.fromkeys([*self.own_conditions(), *map(parse_condition, self.methods)]))

    @property
    def trained_by(self) -> Optimiser:
        """The optimiser of every run, with the course of its learning rate."""
        options = tuple(sorted(self.optimiser_options.items()))
        if self.optimiser not in _optimisers.names():
            return OwnOptimiser(self.optimiser, self.digests["optimiser"], json.dumps(dict(options)))
        return NamedOptimiser(self.optimiser, self.momentum, options, RateCourse(self.decay, self.warm_up))

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The comparisons the study makes, the first of them the one it answers by."""
        return ("equal-steps",)

    def cells(self) -> Sequence[Self]:
        """The settings at each value of the axis, of which each chooses its own learning rates."""
        return [self]

    @property
    def weight(self) -> int:
        """About how many times as much a step costs as those of other cells."""
        return 1

    def steps_at(self, rate: float, comparison: Comparison | None = None) -> int:
        """The number of steps of a run at a learning rate, by default in the study's first comparison."""
        return self.steps

    def check_condition(self, condition: Condition) -> None:
        """Raises `ValueError` for one that does not go with the optimiser."""
        condition.schedule.check_optimiser(name_of(self.optimiser), self.optimiser not in _optimisers.names())
        for modifier in condition.modifiers:
            modifier.check_optimiser(name_of(self.optimiser), self.momentum)

    @model_validator(mode="after")
    def _fit_the_optimiser(self) -> Self:
        for condition in self.all_conditions():
            self.check_condition(condition)
        return self

    @model_validator(mode="before")
    @classmethod
    def _with_margin(cls, fields: Any, info: ValidationInfo) -> Any:
        """With the margin of a measure of one's own, where none is given; its code is run for that."""
        measure = fields.get("measure", ACCURACY) if isinstance(fields, dict) else ACCURACY
        if info.context is STORED or "margin" in fields or not isinstance(measure, str) or not cls.takes_measure:
            return fields
        if measure == ACCURACY or not is_code(measure):
            return fields
        digests = fields.get("digests", {})
        digest = digests.get("measure") if isinstance(digests, dict) else None
        return {**fields, "margin": load_measure(measure, digest or digest_of(measure)).margin}

    @field_validator("measure")
    @classmethod
    def _known_measure(cls, measure: str) -> str:
        if measure != ACCURACY and not cls.takes_measure:
            why = f", {cls.no_measure}" if cls.no_measure else ""
            raise ValueError(
                f"this study takes no measure of your own{why}; leave it out, or ask another, such as frequency"
            )
        if measure != ACCURACY and not is_code(measure):
            raise ValueError(f"the measure is {ACCURACY}, or one of your own, FILE.py:NAME or package.module:NAME")
        return measure

    @field_validator("margin")
    @classmethod
    def _part(cls, margin: float, info: ValidationInfo) -> float:
        if info.data.get("measure") == ACCURACY and margin >= 100:
            raise ValueError("a margin in percentage points must be less than 100")
        return margin

    @field_validator("methods")
    @classmethod
    def _understood(cls, methods: list[str]) -> list[str]:
        return [parse_condition(name).name for name in methods]

    @field_validator("optimiser")
    @classmethod
    def _known_optimiser(cls, optimiser: str) -> str:
        return _optimisers.check_name(optimiser)

    @field_validator("momentum")
    @classmethod
    def _of_optimiser(cls, momentum: float | None, info: ValidationInfo) -> float | None:
        name = info.data.get("optimiser")
        return momentum if name is None else _optimisers.checked_momentum(name, momentum)

    @field_validator("optimiser_options")
    @classmethod
    def _all_options(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        name = info.data.get("optimiser")
        unlike = info.context is STORED or info.data.get("model") not in OPTIONS
        return options if name is None else _optimisers.checked_options(name, options, unlike)

    @field_validator("learning_rates", mode="before")
    @classmethod
    def _own_rates(cls, values: Any, info: ValidationInfo) -> Any:
        return _optimisers.grid_of(info.data.get("optimiser", _optimisers.DEFAULT)) if values is None else values

    @field_validator("follow_edges")
    @classmethod
    def _from_two(cls, number: int, info: ValidationInfo) -> int:
        if number and len(info.data.get("learning_rates", (1, 2))) < 2:
            raise ValueError("two learning rates at least are needed to know how far apart further ones are")
        return number

    @field_validator("learning_rates")
    @classmethod
    def _some(cls, values: list[float]) -> list[float]:
        if not values:
            raise ValueError("at least one learning rate is needed")
        return sorted(set(values), reverse=True)


def whole_periods(periods: list[float]) -> list[float]:
    """The periods in increasing order, each once, with ordinary training among them.

    **Raises:** `ValueError` for one that is no whole number and not infinite, and without 1.
    """
    for k in periods:
        if not ((math.isinf(k) and k > 0) or (1 <= k <= LARGEST and float(k).is_integer())):
            raise ValueError(
                f'a period must be a whole number of at least 1 and at most {LARGEST}, or "inf", got {k:g}'
            )
    if 1 not in periods:
        raise ValueError("the periods must include 1, ordinary training, to compare with")
    return sorted(set(periods))
