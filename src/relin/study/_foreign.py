"""Runs that were made elsewhere, in any loop or framework: from a table of them to an answer."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from pydantic import BaseModel, ValidationError

from relin._common.words import listed
from relin.study._answer import Answer
from relin.study._condition import Condition, parse_condition
from relin.study._errors import SpecError
from relin.study._foreign_columns import table_of, with_checked_columns
from relin.study._judged import DIVERGED, FAILED, TRAINED, judged
from relin.study._measure import Accuracy, Measure
from relin.study._measured import BETTER, told_of
from relin.study._registry import find
from relin.study._result import Interval, ScheduleOutcome
from relin.study._settings import GridSpec
from relin.study._spec import problems

_RUN = ("schedule", "learning_rate", "seed", "run_steps")
_AS_COLUMNS = {
    "data": "data",
    "model": "model",
    "batch_size": "batch_size",
    "num_classes": "num_classes",
    "chance": "constant_accuracy",
}
"""Settings that stand for a column with the same value in every row."""
_STEPS = {"steps": "run_steps"}
"""The same, where there is no such column: rates may take different numbers of steps."""
_BY_RUNS = ("study", "seeds", "learning_rates", "methods", "totals", "updates")
_UNNAMED = {"data": "the given data", "model": "the given network"}
_ORDINARY = "every-1"


def answer_of(question: str, runs: Any, settings: Mapping[str, Any]) -> Answer:
    """What runs that were made elsewhere say to the question of a study.

    Columns, settings and what is inferred are on the page *Runs made elsewhere* of the documentation.

    **Raises:** `ValueError` for a study that needs more than such runs have, for columns that are missing or hold what
    they must not, and for runs that cannot be compared.
    """
    kind = _settings_of(question)
    settings = {name: value for name, value in settings.items() if value is not None}
    table, settings = _measured(table_of(runs), settings)
    table = with_checked_columns(_with_settings(table, settings))
    _require(table, "seed", "learning_rate", "test_accuracy")
    _check_one_setting(table)
    each = _compares_steps(kind)
    table = _with_steps(table, each)
    _check_runs(table)
    for steps in table["run_steps"].unique().sort() if each else [None]:
        _check_seeds(table if steps is None else table.filter(run_steps=steps), steps)
    table, notes = _with_outcomes(table)
    if table["run_steps"].n_unique() > 1 and each and not _is_measured(table, "validation_accuracy"):
        raise ValueError(
            "Expected the column validation_accuracy, by which the best number of steps T is chosen, got none; add it, "
            "or keep runs of one T (test data never choose)."
        )
    conditions = [parse_condition(name) for name in table["schedule"].unique(maintain_order=True)]
    spec, shown = _spec_of(kind, question, conditions, table, settings)
    table = table.with_columns(
        study=pl.lit(question), num_steps=pl.lit(spec.steps) if spec.axis is None else pl.col("run_steps")
    )
    _check_steps(spec, table)
    study = find(question)(spec)
    records = judged(table, study.loss)
    unmeasured = [name for name in ("validation_accuracy", "network_test_accuracy") if not _is_measured(table, name)]
    # One rate each, of one T, leaves nothing to choose, and nothing is concluded from the network's accuracy.
    result = study.conclude(records.with_columns(pl.lit(0.5).alias(name) for name in unmeasured))
    if not _knows_failures(records):
        result = result.model_copy(update={"verdict": f"{result.verdict} Whether runs failed to train is not known."})
    made = "elsewhere, by another program than relin; one seed is taken to mean the same initial network and batches"
    return Answer(_without(result, unmeasured), records, {**shown, "runs_made": made, "runs_read": "; ".join(notes)})


def _measured(table: pl.DataFrame, settings: dict[str, Any]) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The table, told that its accuracies are values of a measure where one is given, and the other settings."""
    measure = settings.pop("measure", None)
    if isinstance(measure, Accuracy):
        return table, ({} if measure.margin is None else {"margin": measure.margin}) | settings
    if measure is None and BETTER not in table.columns:
        return table, settings
    if not isinstance(measure, Measure):
        raise ValueError(
            "For runs made elsewhere `measure` must be an object of Python, got "
            f'{measure!r}; pass for example study.Measure(None, "MAE", False, margin=0.05, unit="s").'
        )
    own = {"measure": f"Measure::{measure.name}", "margin": measure.margin}
    own |= {} if measure.untrained is None or "constant_accuracy" in table.columns else {"chance": measure.untrained}
    return table.with_columns(**told_of(measure)), own | settings


def _settings_of(question: str) -> type[GridSpec]:
    kind = find(question).settings
    if kind.beyond_outcomes is not None or not issubclass(kind, GridSpec):
        raise SpecError(
            f"The study {question} cannot be answered from runs made elsewhere, since it needs {kind.beyond_outcomes}; "
            f"run it with `relin study {question}`."
        )
    return kind


def _compares_steps(kind: type[GridSpec]) -> bool:
    """Whether runs of several numbers of steps are what the study compares."""
    return kind.model_construct().axis == "run_steps"


def _with_settings(table: pl.DataFrame, settings: Mapping[str, Any]) -> pl.DataFrame:
    """With a column for each setting that stands for one, and names for data and network that have none."""
    for name, column in {**_AS_COLUMNS, **_STEPS}.items():
        given, there = settings.get(name), column in table.columns
        if (there and (given is None or name in _STEPS)) or (given is None and name not in _UNNAMED):
            continue
        value = _UNNAMED[name] if given is None else given
        if there and table[column].drop_nulls().unique().to_list() != [value]:
            raise ValueError(
                f"{name} is {value!r} as a setting, and the column {column} holds "
                f"{listed(table[column].unique().sort())}; give one of the two."
            )
        try:
            table = table.with_columns(pl.lit(value).alias(column))
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be a single value, got {type(value).__name__}; correct it.") from None
    return table


def _require(table: pl.DataFrame, *names: str) -> None:
    if missing := [name for name in names if name not in table.columns]:
        raise ValueError(
            f"Expected a table of runs with the columns {listed(names)}, got none named {listed(missing)}; add them."
        )


def _check_one_setting(table: pl.DataFrame) -> None:
    for name in _AS_COLUMNS.values():
        if name in table.columns and table[name].n_unique() > 1:
            raise ValueError(
                f"Expected runs of one {name}, got {listed(table[name].unique().sort())}; keep those of one, and ask "
                "for the others apart."
            )
    if BETTER in table.columns and not _is_measured(table, "constant_accuracy"):
        raise ValueError(
            f"Expected the {table.item(0, 'measure')} at which a run that did not train counts, got none; set "
            "`untrained` of the measure, or chance."
        )
    if not any(_is_measured(table, name) for name in ("constant_accuracy", "num_classes")):
        raise ValueError(
            "Expected the accuracy at which a run that diverged counts, got neither num_classes nor chance; set "
            "num_classes to the number of classes, or chance to the share of the most frequent one."
        )


def _is_measured(table: pl.DataFrame, name: str) -> bool:
    return name in table.columns and table[name].cast(pl.Float64).is_finite().any()


def _with_steps(table: pl.DataFrame, each: bool) -> pl.DataFrame:
    """With T of each run as `run_steps`, and `step`, the last one where there is a row a run."""
    if "run_steps" not in table.columns:
        if each:
            raise ValueError(
                "Expected the number of steps T of each run, which this study compares, got no column run_steps; add "
                "it."
            )
        if "step" not in table.columns:
            raise ValueError(
                "Expected the number of training steps T, got neither a column run_steps or step nor the setting "
                "steps; add one of them."
            )
        table = table.with_columns(run_steps=pl.col("step").max())
    if "step" not in table.columns:
        table = table.with_columns(step=pl.col("run_steps"))
    return table.sort(*_RUN, "step")


def _name(run: Mapping[str, Any]) -> str:
    return f"{run['schedule']} at learning rate {run['learning_rate']:g}, seed {run['seed']}"


def _check_runs(table: pl.DataFrame) -> None:
    twice = table.filter(pl.struct(*_RUN, "step").is_duplicated())
    if not twice.is_empty():
        row = twice.row(0, named=True)
        raise ValueError(
            f"The run {_name(row)} has more than one row for step {row['step']}; keep one row of each run, or tell its "
            "recorded steps apart in a column step."
        )
    late = table.filter(pl.col("step") > pl.col("run_steps"))
    if not late.is_empty():
        row = late.row(0, named=True)
        raise ValueError(
            f"The run {_name(row)} has a row for step {row['step']} of {row['run_steps']}; correct step or run_steps."
        )


def _check_seeds(runs: pl.DataFrame, steps: int | None) -> None:
    """Whether all runs, or those of so many steps, can be paired with ordinary training."""
    ordinary = runs.filter(schedule=_ORDINARY)["seed"].unique()
    where = "" if steps is None else f" of {steps} steps"
    if ordinary.is_empty():
        raise ValueError(
            f"Expected runs of ordinary training{where}, K = 1, to compare with, got only "
            f"{listed(runs['schedule'].unique().sort())}; add them."
        )
    if ordinary.len() < 2:
        raise ValueError(
            f"Expected at least 2 seeds of ordinary training{where}, K = 1, got {ordinary.len()}; add runs of other "
            "seeds, the same ones for every schedule."
        )
    alone = runs.filter(~pl.col("seed").is_in(ordinary.to_list()))
    if not alone.is_empty():
        raise ValueError(
            f"The run {_name(alone.row(0, named=True))} has no run of ordinary training{where}, K = 1, with its seed; "
            "add that one, or leave this one out."
        )
    if runs["schedule"].n_unique() < 2:
        raise ValueError(
            f"Expected runs{where} to compare with ordinary training, K = 1, got none; add other schedules."
        )


_OPTIONAL: Mapping[str, Any] = {
    **dict.fromkeys(("train_loss", "validation_loss", "final_loss", "constant_loss"), pl.Float64),
    **dict.fromkeys(("validation_accuracy", "network_test_accuracy"), pl.Float64),
    **dict.fromkeys(("linearisation_error", "parameter_movement"), pl.Float64),
    **dict.fromkeys(("diverged_at", "batch_size", "num_classes"), pl.Int64),
    "result": pl.String,
}
"""Columns that are null where they are not given."""


def _with_outcomes(table: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """With how each run ended, and null for what was not recorded; and what was inferred, in words."""
    absent = {name: kind for name, kind in _OPTIONAL.items() if name not in table.columns}
    table = table.with_columns(pl.lit(None, kind).alias(name) for name, kind in absent.items())
    if (table["result"] == FAILED).any() and not _knows_failures(table):
        raise ValueError(
            f"A run's result is {FAILED!r}, which follows from its final loss and that of a constant predictor, got "
            "none; add the columns train_loss and constant_loss."
        )
    table = _with_divergence(table)
    notes = [f"a run {DIVERGED} where its accuracy or loss at its end is not finite, or result says so"]
    if not _knows_failures(table):
        notes.append("whether a run failed to train is not known without train_loss and num_classes or constant_loss")
    if not _is_measured(table, "feature_updates"):
        table = _with_updates(table)
        notes.append("the numbers of feature updates follow from the schedules")
    unseen = [name for name in absent if name in ("train_loss", "network_test_accuracy", "validation_accuracy")]
    return _with_origin(table), [*notes, *([f"not recorded: {', '.join(unseen)}"] if unseen else [])]


def _knows_failures(table: pl.DataFrame) -> bool:
    """Whether final losses are known, and that of the best constant predictor."""
    final = any(_is_measured(table, name) for name in ("final_loss", "train_loss"))
    return final and any(_is_measured(table, name) for name in ("constant_loss", "num_classes"))


def _with_divergence(table: pl.DataFrame) -> pl.DataFrame:
    """With `result`, `diverged_at` and `final_loss` as `judged` reads them."""
    losses = [pl.col(name) for name in ("final_loss", "train_loss")]
    at_end = pl.col("step") == pl.col("step").max().over(_RUN)
    numbers = [pl.col("test_accuracy"), *losses]
    broken = pl.any_horizontal((~number.is_finite()).fill_null(value=False) for number in numbers)
    told = (pl.col("result") == DIVERGED).fill_null(value=False) | pl.col("diverged_at").is_not_null()
    lost = told | (at_end & (broken | pl.col("test_accuracy").is_null()))
    final = pl.coalesce(*losses).sort_by("step").last().over(_RUN)
    begun = pl.coalesce("diverged_at", pl.when(broken | at_end).then("step")).min().over(_RUN)
    table = table.with_columns(_relin_diverged=lost.any().over(_RUN), _relin_at_end=at_end)
    _check_ends(table.filter(pl.col("_relin_at_end") & ~pl.col("_relin_diverged")))
    return table.with_columns(
        final_loss=pl.when("_relin_diverged").then(math.nan).otherwise(final),
        diverged_at=pl.when("_relin_diverged").then(begun).otherwise(None).cast(pl.Int64),
        result=pl.when("_relin_diverged").then(pl.lit(DIVERGED)).otherwise(pl.lit(TRAINED)),
    ).drop("_relin_diverged", "_relin_at_end")


def _check_ends(ends: pl.DataFrame) -> None:
    """Of the last rows of runs that did not diverge: whether they are where the runs end, and whole."""
    early = ends.filter(pl.col("step") < pl.col("run_steps"))
    if not early.is_empty():
        row = early.row(0, named=True)
        raise ValueError(
            f"The run {_name(row)} did not diverge and ends at step {row['step']} of {row['run_steps']}; add the row "
            'of its last step, or say "diverged" in a column result.'
        )
    for name in ("validation_accuracy", "network_test_accuracy", "feature_updates"):
        if name not in ends.columns:
            continue
        missing = ends.filter(~pl.col(name).is_finite().fill_null(value=False))
        if 0 < missing.height < ends.height:
            row = missing.row(0, named=True)
            raise ValueError(
                f"The run {_name(row)} ends without {name}, and others do not; add it, or drop the column."
            )
    rates = ends.group_by("schedule", "run_steps").agg(pl.col("learning_rate").n_unique()).sort("learning_rate")
    if not _is_measured(ends, "validation_accuracy") and not rates.is_empty() and rates["learning_rate"][-1] > 1:
        raise ValueError(
            f"Expected the column validation_accuracy, by which the learning rate of {rates['schedule'][-1]} is chosen "
            f"among {rates['learning_rate'][-1]}, got none; add it, or keep one rate of each schedule (test data "
            "never choose)."
        )


def _with_updates(table: pl.DataFrame) -> pl.DataFrame:
    """With the feature updates by each step that follow from the schedules."""
    places = table.select("schedule", "step", "run_steps", "diverged_at").unique(maintain_order=True)
    counts = []
    for name, step, steps, diverged_at in places.iter_rows():
        condition = parse_condition(name)
        until = step if diverged_at is None else min(step, diverged_at)
        count = None if condition.modifiers else condition.schedule.updates_by(until, steps)
        if count is None:
            raise ValueError(
                f"Expected the number of feature updates of each run, which does not follow from the schedule {name}, "
                "got no column feature_updates; add it."
            )
        counts.append(count)
    own = places.with_columns(feature_updates=pl.Series(counts, dtype=pl.Int64))
    return table.drop("feature_updates", strict=False).join(
        own, on=places.columns, maintain_order="left", nulls_equal=True
    )


def _with_origin(table: pl.DataFrame) -> pl.DataFrame:
    """With the versions and the device of relin's own runs, or none."""
    for name, default in (("versions", "{}"), ("device", "not recorded")):
        if name not in table.columns:
            table = table.with_columns(pl.lit(default).alias(name))
    try:
        for text in table["versions"].unique():
            dict(json.loads(text))
    except (TypeError, ValueError):
        raise ValueError('versions must be JSON such as {"torch": "2.5"}, in each row; correct or rename it.') from None
    return table


def _spec_of(
    kind: type[GridSpec],
    question: str,
    conditions: Sequence[Condition],
    table: pl.DataFrame,
    settings: Mapping[str, Any],
) -> tuple[GridSpec, dict[str, Any]]:
    """The settings that conclusions are drawn with, and those of them that are true of the runs, to show."""
    try:
        asked = kind.asked_by(conditions, sorted(table["run_steps"].unique().to_list()))
    except ValueError as error:
        raise ValueError(
            f"The study {question} needs {error}, got {listed(c.name for c in conditions)}; add them, or ask another "
            "question."
        ) from None
    by_runs = {*_BY_RUNS, *asked} - {"layers"}
    if taken := sorted(by_runs & settings.keys()):
        raise ValueError(f"{listed(taken)} follows from the runs; leave it out.")
    given = {name: value for name, value in settings.items() if name not in _AS_COLUMNS}
    if settings.get("comparison", "equal-steps") != "equal-steps" and "steps" not in settings:
        raise ValueError("Expected the setting steps, T at the reference rate, with this comparison; give it.")
    own = {
        **({} if _compares_steps(kind) else {"steps": int(table["run_steps"].max())}),  # pyright: ignore
        **asked,
        "learning_rates": sorted(table["learning_rate"].unique().to_list()),
        **given,
    }
    try:
        spec = kind.model_validate({**own, "seeds": 2})
        compared = {*spec.own_conditions(), *(c for cell in spec.cells() for c in cell.own_conditions())}
        others = [c.name for c in conditions if c not in compared and c.period is None]
        spec = kind.model_validate({**own, "seeds": 2, "methods": others})
    except ValidationError as error:
        raise SpecError(f"The settings of these runs are wrong: {problems(error, kind)}.") from None
    if spec.axis is None:
        there = set(conditions)
        missing = [c.name for c in spec.own_conditions() if c not in there and c.period != math.inf]
        if missing:
            raise ValueError(
                f"The study {question} compares schedules of which no run was given: {listed(missing)}; add their "
                "runs, or leave out those that belong to them."
            )
    loss = ["loss"] if _is_measured(table, "final_loss") else []
    told = spec.model_dump(mode="json", include={*own, "margin", "confidence", "methods", *loss})
    row = table.row(0, named=True)
    named = {name: row.get(column) for name, column in _AS_COLUMNS.items() if row.get(column) is not None}
    return spec, {"study": question, **named, "seeds": table["seed"].n_unique(), **told}


def _check_steps(spec: GridSpec, table: pl.DataFrame) -> None:
    """Whether each run is part of a comparison: one that is not would be left out in silence."""
    if spec.axis is not None:
        return
    for rate, steps in table.select("learning_rate", "run_steps").unique(maintain_order=True).iter_rows():
        right = {spec.steps_at(rate, comparison) for comparison in spec.comparisons}
        if steps not in right:
            raise ValueError(
                f"Expected runs of {listed(sorted(right))} steps at learning rate {rate:g}, got one of {steps}; keep "
                "runs of one number of steps, or ask the question phase, which compares several."
            )


def _without(value: Any, names: Sequence[str]) -> Any:
    """A result without the numbers that were not measured, wherever it holds outcomes of schedules."""
    if isinstance(value, ScheduleOutcome):
        nothing = {"validation_accuracy": math.nan, "network_test_accuracy": _NOTHING}
        return value.model_copy(update={name: nothing[name] for name in names})
    if isinstance(value, BaseModel):
        fields = {name: _without(getattr(value, name), names) for name in type(value).model_fields}
        return value.model_copy(update=fields)
    if isinstance(value, list):
        return [_without(each, names) for each in value]
    return value


_NOTHING = Interval(mean=math.nan, low=math.nan, high=math.nan)
