"""The layers study: each layer alone with feature updates, and each alone without."""

from typing import cast

import polars as pl

from relin.studies.layers.result import LayerOutcome, LayersResult
from relin.studies.layers.settings import LayersSpec
from relin.study._condition import parse_condition
from relin.study._outcomes import Compared, compare_by
from relin.study._result import Interval
from relin.study._schedules import Lazy, Rich
from relin.study._settings import Comparison
from relin.study._verdict import criterion, lazy_clause, no_answer, outcome_clauses


def conclude(spec: LayersSpec, records: dict[Comparison, pl.DataFrame], chance: float) -> LayersResult:
    """What the feature updates of each layer bring alone, and what their absence costs.

    Layers alone rich, layers alone lazy, and K = ∞ each are a family of Holm's correction.

    **Arguments:**

    - `spec`: the settings.
    - `records`: those of each comparison, one row per run and recorded step.
    - `chance`: accuracy at which a run that did not train counts.
    """
    compared = compare_by(spec, records["equal-steps"], chance, family=lambda schedule: parse_condition(schedule).kind)
    layers = [_layer(compared, number, layer) for number, layer in enumerate(spec.layers)]
    names = {name: f"{layer.layer} alone {how}" for layer in layers for how, name in _schedules(layer).items()}
    outcomes = [o.model_copy(update={"label": names.get(o.schedule, o.label)}) for o in compared.outcomes]
    result = LayersResult(**{**compared.shared, "outcomes": outcomes}, layers=layers)
    return result.model_copy(update={"verdict": _verdict(result)})


def _schedules(layer: LayerOutcome) -> dict[str, str]:
    return {"rich": layer.rich, "lazy": layer.lazy}


def _layer(compared: Compared, number: int, layer: str) -> LayerOutcome:
    rich, lazy = Rich(number).name, Lazy(number).name
    return LayerOutcome(
        layer=layer,
        rich=rich,
        lazy=lazy,
        gain=_difference(compared, rich, "never"),
        loss=_difference(compared, lazy, "every-1"),
    )


def _difference(compared: Compared, schedule: str, other: str) -> Interval | None:
    if compared.outcome(other) is None:
        return None
    return compared.interval(compared.versus(schedule, other))


def _verdict(result: LayersResult) -> str:
    if not result.is_comparable:
        return no_answer(result)
    clauses = [f"On {result.data}, {lazy_clause(result.lazy_gap, result.scale)}"] if result.lazy_gap is not None else []
    gains = [layer for layer in result.layers if layer.gain is not None]
    if gains:
        best = max(gains, key=lambda layer: cast(Interval, layer.gain).mean)
        gain, on_par, scale = cast(Interval, best.gain), _on_par(result, best.rich), result.scale
        clauses.append(
            f"feature updates of {best.layer} alone bring most, {scale.in_points(scale.gain(gain.mean))} over none "
            f"[{scale.gain(gain.low)}, {scale.gain(gain.high)}]{', on par with those of all layers' if on_par else ''}"
        )
    spared = [layer.layer for layer in result.layers if _on_par(result, layer.lazy)]
    if spared:
        clauses.append(f"each of {', '.join(spared)} may alone stay lazy")
    else:
        clauses.append("no layer is shown to be one that may stay lazy")
    return "; ".join([*clauses, *outcome_clauses(result)]) + f" ({criterion(result)})."


def _on_par(result: LayersResult, schedule: str) -> bool:
    outcome = result.outcome(schedule)
    return outcome is not None and bool(outcome.on_par)
