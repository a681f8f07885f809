"""Everything public in `relin.study`, imported at its first use."""

from relin.study._descent_result import DampingResult as DampingResult, InterpolationResult as InterpolationResult
from relin.study._executor import AbstractExecutor as AbstractExecutor, ThreadExecutor as ThreadExecutor
from relin.study._kernel_result import KernelResult as KernelResult, WidthResult as WidthResult
from relin.study._method import Method as Method, parse_method as parse_method
from relin.study._result import (
    EssentialResult as EssentialResult,
    FrequencyResult as FrequencyResult,
    GridResult as GridResult,
    LayersResult as LayersResult,
    StabilityResult as StabilityResult,
    StudyResult as StudyResult,
    TimingResult as TimingResult,
)
from relin.study._settings import GridSpec as GridSpec, StudySpec as StudySpec
from relin.study._spec import SpecError as SpecError, read_spec as read_spec, shipped as shipped
from relin.study._specs import (
    DampingSpec as DampingSpec,
    EssentialSpec as EssentialSpec,
    FrequencySpec as FrequencySpec,
    InterpolationSpec as InterpolationSpec,
    KernelSpec as KernelSpec,
    LayersSpec as LayersSpec,
    StabilitySpec as StabilitySpec,
    TimingSpec as TimingSpec,
    WidthSpec as WidthSpec,
)
from relin.study._store import Store as Store, StoreError as StoreError
from relin.study._study import (
    Progress as Progress,
    conclude as conclude,
    run_study as run_study,
    stored_study as stored_study,
    train_one as train_one,
)
