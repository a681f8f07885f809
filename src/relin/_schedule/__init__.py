"""Schedules: when to re-linearise."""

from relin._schedule._adaptive import (
    AbstractWhen as AbstractWhen,
    WhenError as WhenError,
    WhenFunctionMoves as WhenFunctionMoves,
    WhenLossGap as WhenLossGap,
    next_interval as next_interval,
)
from relin._schedule._base import AbstractSchedule as AbstractSchedule, check_count as check_count
from relin._schedule._composed import After as After, Until as Until, innermost as innermost
from relin._schedule._fixed import (
    AtSteps as AtSteps,
    EqualTime as EqualTime,
    Every as Every,
    Geometric as Geometric,
    Never as Never,
)
from relin._schedule._per_parameter import PerParameter as PerParameter
