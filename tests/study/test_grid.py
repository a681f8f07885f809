import itertools
import math
from collections import Counter

import pytest

from relin.studies.frequency.settings import FrequencySpec
from relin.study._grid import comparison_packs, finals_packs, later_cost, selection_packs

SPEC = FrequencySpec(
    steps=20,
    periods=[1, 4, math.inf],
    tolerances=[0.1],
    learning_rates=[0.1, 0.01],
    seeds=5,
    select_seeds=2,
)
NAMES = ["every-1", "every-4", "never", "when-error-0.1"]


def runs_of(packs):
    return [run for pack in packs for run in pack.runs]


def ranked(*rates, comparison="equal-steps", **other):
    return {comparison: {name: list(rates) for name in NAMES} | other}


def identity(run):
    return run.method.name, run.learning_rate, run.seed


@pytest.mark.parametrize("lanes", [1, 6, 128])
def test_every_run_is_in_exactly_one_pack(lanes):
    selected = runs_of(selection_packs(SPEC, lanes))
    expected = Counter(itertools.product(NAMES, [0.1, 0.01], range(2)))
    assert Counter(map(identity, selected)) == expected
    chosen = ranked(0.1, never=[0.01])
    compared = runs_of(comparison_packs(SPEC, chosen, lanes))
    assert Counter(map(identity, compared)) == Counter(
        (name, chosen["equal-steps"][name][0], seed) for name in NAMES for seed in (2, 3, 4)
    )


@pytest.mark.parametrize("lanes", [1, 6, 128])
@pytest.mark.parametrize("comparison", ["equal-steps", "equal-distance"])
def test_a_pack_is_one_program(lanes, comparison):
    spec = SPEC.model_copy(update={"comparison": comparison})
    packs = selection_packs(spec, lanes) + comparison_packs(spec, ranked(0.01, comparison=comparison), lanes)
    for pack in packs:
        assert len({(run.method.program, run.num_steps) for run in pack.runs}) == 1
        assert pack.cost == sum(run.num_steps for run in pack.runs)
    assert {run.num_steps for run in runs_of(packs)} == ({20} if comparison == "equal-steps" else {20, 200})
    assert len({pack.name for pack in packs}) == len(packs)


def test_packs_of_a_kind_are_equally_large():
    spec = SPEC.model_copy(update={"seeds": 14, "select_seeds": 4})
    sizes = {len(pack.runs) for pack in selection_packs(spec, 15) if pack.program == "every"}
    assert sizes == {12}  # 8 groups of 3 runs as two packs of 4 groups, not as 5 and 3


def test_names_of_packs_are_the_same_on_every_machine():
    assert [pack.name for pack in selection_packs(SPEC, 1)][:2] == [
        "select-every-seed000-e0edfd50deec",
        "select-every-seed000-96cd9da0f206",
    ]


def test_the_cost_of_the_second_stage_is_not_underestimated():
    for rate in SPEC.learning_rates:
        packs = comparison_packs(SPEC, ranked(rate), 1)
        assert sum(pack.cost for pack in packs) <= later_cost(SPEC, "select")


def test_all_seeds_may_select():
    spec = SPEC.model_copy(update={"select_seeds": 9})
    assert {run.seed for run in runs_of(selection_packs(spec, 1))} == set(range(5))
    assert comparison_packs(spec, ranked(0.1), 1) == []
    assert later_cost(spec, "select") == 0


def test_two_comparisons_share_the_runs_they_have_in_common():
    spec = SPEC.model_copy(update={"comparison": "both"})
    selected = runs_of(selection_packs(spec, 1))
    lengths = Counter((run.method.name, run.learning_rate, run.num_steps, run.seed) for run in selected)
    assert lengths == Counter(
        (name, rate, steps, seed)
        for name in NAMES
        for rate, steps in [(0.1, 20), (0.01, 20), (0.01, 200)]
        for seed in range(2)
    )
    chosen = ranked(0.1) | ranked(0.01, comparison="equal-distance", never=[0.1])
    compared = runs_of(comparison_packs(spec, chosen, 1))
    assert Counter((run.method.name, run.num_steps) for run in compared if run.seed == 2) == Counter(
        [(name, 20) for name in NAMES] + [(name, 200) for name in NAMES if name != "never"]
    )
    assert later_cost(spec, "select") >= sum(run.num_steps for run in compared)


@pytest.mark.parametrize("lanes", [1, 6, 128])
def test_finalists_alone_meet_the_other_seeds_that_choose(lanes):
    spec = SPEC.model_copy(update={"finalists": 1, "select_seeds": 3})
    assert Counter(map(identity, runs_of(selection_packs(spec, lanes)))) == Counter(
        itertools.product(NAMES, [0.1, 0.01], [0])
    )
    best = ranked(0.1, 0.01, never=[0.01, 0.1])
    finals, compared = finals_packs(spec, best, lanes), comparison_packs(spec, best, lanes)
    assert Counter(map(identity, runs_of(finals))) == Counter(
        (name, best["equal-steps"][name][0], seed) for name in NAMES for seed in (1, 2)
    )
    assert {run.seed for run in runs_of(compared)} == {3, 4}
    assert later_cost(spec, "select") >= sum(pack.cost for pack in finals + compared)
    assert later_cost(spec, "finals") >= sum(pack.cost for pack in compared)
    assert finals_packs(SPEC, best, lanes) == []
