import math

import pytest

from relin.study import Condition, parse_condition
from relin.study._condition import every
from relin.study._modifiers import AbstractModifier, Clip, Proximal
from relin.study._schedules import AbstractNamedSchedule, AbstractPlaced, Early, Even, Every, Geometric, Late, WhenError

SCHEDULES = [  # name, label, program, numbers that are refused
    ("every-1", "K = 1", "every", "0 -1 1.5 inf nan 1000000001 99999999999"),
    ("every-64", "K = 64", "every", ""),
    ("never", "K = ∞ (lazy)", "every", "1"),
    ("when-error-0.1", "error ≤ 0.1", "when-error", "x nan inf -1"),
    ("when-loss-gap-2", "loss gap ≤ 2", "when-loss-gap", "x nan inf -1"),
    ("when-moves-0", "movement ≤ 0", "when-moves", "x nan inf -1"),
    ("until-16", "frozen after 16", "until", "-1 1.5 inf"),
    ("after-0", "from step 0", "after", "-1 1.5 inf"),
    ("early-8", "8 updates, early", "early-8", "0 1.5 100001"),
    ("even-8", "8 updates, even", "even-8", "0 1.5 100001"),
    ("geometric-8", "8 updates, geometric", "geometric-8", "0 1.5 100001"),
    ("equal-time-8", "8 updates, equal time", "equal-time-8", "0 1.5 100001"),
    ("late-100000", "100000 updates, late", "late-100000", "0 1.5 100001"),
    ("rich-0", "layer 0 alone rich", "rich-0", "-1 1.5 inf"),
    ("lazy-2", "layer 2 alone lazy", "lazy-2", "-1 1.5 inf"),
]
MODIFIERS = [  # the same
    ("clip-0.3", "clipped at 0.3", "clip", "0 -1 nan inf x"),
    ("line-1", "line search 1", "line", "0.5 nan inf"),
    ("grid-5", "best of 5 scales", "grid-5", "1 2.5 33 nan"),
    ("trust-1.5", "trust region 1.5", "trust", "0 -1 nan inf"),
    ("proximal-0", "proximal 0", "proximal", "-1 nan inf"),
    ("shrink-0.5", "moments × 0.5", "shrink-0.5", "0 1 nan"),
    ("reset", "moments reset", "reset", "1 0.5"),
    ("average", "averaged", "average", "0 -1 1.5 nan inf x"),
    ("bound-0.1", "layers bounded at 0.1", "bound", "0 -1 nan inf"),
    ("sparse", "sparse", "sparse", "1 0.5"),
    ("cosine", "cosine in each window", "cosine", "1 0.5"),
    ("warm-8", "warm-up of 8 in each window", "warm", "-1 1.5 inf"),
    ("cap-0.5", "rate ≤ 0.5 of the limit", "cap", "0 -1 nan inf"),
]
WRONG = """
sometimes 4 Every-4 every4 every-4+ every-4+clap-1 clip-1 clip-1+every-4 every-4+never sparse every-4+line-1+trust-1
every-4+clip-1+clip-2 every-4+reset+shrink-0.5 every-4+sparse+clip-1 every-4+clip-1+sparse every-4+sparse+sparse
"""


def is_refused(name):
    with pytest.raises(ValueError, match=r"must be every-K \(K = 1, 2, …\), never, when-error-TOLERANCE.* got '"):
        parse_condition(name)


def test_the_tables_have_every_kind():
    assert {parse_condition(name).kind for name, *_ in SCHEDULES} == set(AbstractNamedSchedule.kinds)
    assert {AbstractModifier.parse(name).kind for name, *_ in MODIFIERS} == set(AbstractModifier.kinds)


@pytest.mark.parametrize(("name", "label", "program", "refused"), SCHEDULES)
def test_schedules(name, label, program, refused):
    condition = parse_condition(name)
    assert (condition.name, condition.label, condition.program) == (name, label, program)
    assert condition.period == {"every-1": 1, "every-64": 64, "never": math.inf}.get(name)
    kind = name if name == "never" else condition.kind
    for number in refused.split():
        is_refused(f"{kind}-{number}")
    is_refused(f"{name}-")
    if name != "never":
        is_refused(kind)


@pytest.mark.parametrize(("name", "label", "program", "refused"), MODIFIERS)
def test_modifiers(name, label, program, refused):
    condition = parse_condition(f"never+{name}")
    assert (condition.name, condition.label) == (f"never+{name}", f"K = ∞ (lazy), {label}")
    assert (condition.program, condition.period, condition.kind) == (f"every+{program}", None, "every")
    kind = condition.modifiers[0].kind
    for number in refused.split():
        is_refused(f"every-4+{kind}-{number}")
    is_refused(f"every-4+{name}-")
    if kind != name:
        is_refused(f"every-4+{kind}")


def test_several_modifiers_keep_their_order():
    condition = parse_condition("every-64+clip-0.3+trust-1")
    assert (condition.label, condition.program) == ("K = 64, clipped at 0.3, trust region 1", "every+clip+trust")
    assert parse_condition("every-64+trust-1+clip-0.3").program == "every+trust+clip"


@pytest.mark.parametrize("name", [*WRONG.split(), ""])
def test_unknown_schedules_are_refused(name):
    is_refused(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("early-100001", "early takes a whole number from 1 to 100,000, got 100001"),
        ("every-4+clip-x", "clip takes a number above 0, got 'x'"),
        ("every-4+reset-1", "reset takes no number, got 1"),
        ("every-4+line-1+trust-1", "line-1 and trust-1 do not go together"),
        ("every-4+clap-1", "'clap-1' is none of clip, line, grid"),
        ("every-4+warm-1+cosine", "warm-1 and cosine do not go together"),
        ("when-error-0.1+cosine", "cosine does not go with when-error-0.1, whose next update is not known beforehand"),
        ("rich-1+cap-0.5", "cap-0.5 does not go with rich-1, whose layers re-linearise apart"),
    ],
)
def test_refusals_say_why(name, reason):
    with pytest.raises(ValueError, match=rf"got '{name}': {reason}".replace("+", r"\+")):
        parse_condition(name)


def test_conditions_put_together_are_refused_alike():
    for wrong in (lambda: Every(0), lambda: Every(1.5), lambda: Early(0), lambda: WhenError(-1.0), lambda: Clip(0.0)):
        with pytest.raises(ValueError, match="takes a "):
            wrong()
    with pytest.raises(ValueError, match="clip-1 and clip-2 do not go together"):
        every(4, "clip-1", "clip-2")


@pytest.mark.parametrize("value", [0.1, 1.0, 1e-05, 0.123456789, 0.12345678901, 1e17])
def test_conditions_are_found_again_by_their_names(value):
    for condition in [
        Condition(WhenError(value)),
        Condition(Every(4.0), (Clip(value), Proximal(value))),
    ]:
        assert parse_condition(condition.name) == condition


def test_conditions_of_one_program_share_all_but_traced_numbers():
    one, other = parse_condition("every-4+clip-1+shrink-0.5"), parse_condition("never+clip-2+shrink-0.5")
    assert (one.shared, hash(one.shared)) == (other.shared, hash(other.shared))
    assert one.traced(10) == {"every": 4, "clip": 1.0}
    assert other.traced(10) == {"every": 10**9, "clip": 2.0}
    assert parse_condition("early-3+reset").traced(10) == {"steps": [1, 2, 3]}
    assert parse_condition("early-3").shared != parse_condition("early-4").shared
    assert one.shared != parse_condition("every-4+clip-1+shrink-0.25").shared


def test_means_of_all_decays_share_a_program():
    names = ["every-4+average", "every-4+average-0.99", "every-4+average-1"]
    uniform, exponential, one = map(parse_condition, names)
    assert (exponential.name, exponential.label) == (names[1], "K = 4, averaged 0.99")
    assert (uniform.program, uniform.traced(9)["average"]) == (exponential.program, 1.0)
    assert one == uniform
    is_refused("every-4+average-0.5+average")


def test_placed_updates_are_as_many_as_asked_for_each_at_a_step_of_its_own():
    assert Early(3).updates_at(100) == [1, 2, 3]
    assert Late(3).updates_at(100) == [97, 98, 99]
    assert Even(3).updates_at(100) == [25, 50, 75]
    assert Geometric(3).updates_at(10_000) == [10, 100, 1000]
    for kind in AbstractPlaced.__subclasses__():
        for number in (1, 5, 50, 99, 300):
            steps = kind(number).updates_at(100)
            assert len(steps) == min(number, 99)
            assert sorted(set(steps)) == steps
            assert steps[0] >= 1
            assert steps[-1] <= 99


def test_every_by_modifiers():
    assert every(math.inf).name == "never"
    assert every(4, "clip-1", "reset").name == "every-4+clip-1+reset"
