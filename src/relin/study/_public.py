"""Everything public in `relin.study`, imported at its first use."""

from relin.datasets._assemble import from_arrays as Data  # noqa: F401, N812
from relin.study._abstract import AbstractStudy as AbstractStudy
from relin.study._answer import Answer as Answer, Figures as Figures
from relin.study._condition import Condition as Condition, parse_condition as parse_condition
from relin.study._descent import AbstractDescentStudy as AbstractDescentStudy
from relin.study._errors import (
    OthersComputeError as OthersComputeError,
    SpecError as SpecError,
    StoreError as StoreError,
    WorkerError as WorkerError,
)
from relin.study._executor import AbstractExecutor as AbstractExecutor, ThreadExecutor as ThreadExecutor
from relin.study._grid_study import AbstractGridStudy as AbstractGridStudy
from relin.study._measure import Accuracy as Accuracy, Measure as Measure
from relin.study._outcomes import Compared as Compared, compare as compare
from relin.study._processes import ProcessExecutor as ProcessExecutor
from relin.study._ray import RayExecutor as RayExecutor
from relin.study._registry import load_study as load_study, register as register
from relin.study._result import (
    GridResult as GridResult,
    Interval as Interval,
    ScheduleOutcome as ScheduleOutcome,
    StudyResult as StudyResult,
)
from relin.study._settings import GridSpec as GridSpec, StudySpec as StudySpec
from relin.study._shard import Shard as Shard
from relin.study._spec import read_spec as read_spec, shipped as shipped
from relin.study._statistics import mean_interval as mean_interval
from relin.study._store import Store as Store
from relin.study._study import (
    Progress as Progress,
    conclude as conclude,
    run_study as run_study,
    stored_study as stored_study,
    train_one as train_one,
)
