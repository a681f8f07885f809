import math

import pytest

from relin.study import parse_condition
from relin.study._condition import Condition, Part, every

WRONG = """
every-0 every--1 every-1.5 every-inf every when-error-x when-error-nan sometimes 4 every-4+ every-4+clip
every-4+clip-0 every-4+clip-nan every-4+clap-1 every-4+line-0.5 every-4+line-1+trust-1 every-4+clip-1+clip-2
every-4+reset+shrink-0.5 every-4+sparse+clip-1 early-0 until--1 until-1.5 every-4+reset-1 every-4+shrink-1
every-99999999999
"""


@pytest.mark.parametrize(
    ("name", "label", "program", "period"),
    [
        ("every-1", "K = 1", "every", 1),
        ("every-64", "K = 64", "every", 64),
        ("never", "K = ∞ (lazy)", "every", math.inf),
        ("when-error-0.1", "error ≤ 0.1", "when-error", None),
        ("when-loss-gap-2", "loss gap ≤ 2", "when-loss-gap", None),
        ("when-moves-0.5", "movement ≤ 0.5", "when-moves", None),
        ("until-16", "frozen after 16", "until", None),
        ("after-100", "from step 100", "after", None),
        ("early-8", "8 updates, early", "early-8", None),
        ("every-64+clip-1", "K = 64, clipped at 1", "every+clip", None),
        ("every-64+clip-0.3+trust-1", "K = 64, clipped at 0.3, trust region 1", "every+clip+trust", None),
        ("every-64+shrink-0.5", "K = 64, moments × 0.5", "every+shrink-0.5", None),
        ("never+reset", "K = ∞ (lazy), moments reset", "every+reset", None),
        ("every-8+sparse", "K = 8, sparse", "every+sparse", None),
        ("when-error-0.1+line-1.5", "error ≤ 0.1, line search 1.5", "when-error+line", None),
    ],
)
def test_names(name, label, program, period):
    condition = parse_condition(name)
    assert (condition.name, condition.label, condition.program, condition.period) == (name, label, program, period)


@pytest.mark.parametrize("value", [0.1, 1.0, 1e-05, 0.123456789, 0.12345678901, 1e17])
def test_methods_are_found_again_by_their_names(value):
    for condition in [
        Condition("when-error", value),
        Condition("every", 4.0, (Part("clip", value), Part("proximal", value))),
    ]:
        assert parse_condition(condition.name) == condition


@pytest.mark.parametrize("name", [*WRONG.split(), ""])
def test_unknown_schedules_are_refused(name):
    with pytest.raises(ValueError, match=r"must be every-K \(K = 1, 2, …\), never, when-error-TOLERANCE.* got '"):
        parse_condition(name)


def test_placed_updates_are_as_many_as_asked_for_each_at_a_step_of_its_own():
    assert Condition("early", 3).updates_at(100) == [1, 2, 3]
    assert Condition("late", 3).updates_at(100) == [97, 98, 99]
    assert Condition("even", 3).updates_at(100) == [25, 50, 75]
    assert Condition("geometric", 3).updates_at(10_000) == [10, 100, 1000]
    for kind in ("early", "even", "geometric", "late"):
        for number in (1, 5, 50, 99, 300):
            steps = Condition(kind, number).updates_at(100)
            assert len(steps) == min(number, 99)
            assert sorted(set(steps)) == steps
            assert steps[0] >= 1
            assert steps[-1] <= 99


def test_every_by_parts():
    assert every(math.inf).name == "never"
    assert every(4, "clip-1", "reset").name == "every-4+clip-1+reset"
