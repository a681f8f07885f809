"""Studies: a question, a grid of runs, their records, the statistics of the answer."""

from relin.study._executor import AbstractExecutor as AbstractExecutor, ThreadExecutor as ThreadExecutor
from relin.study._result import FrequencyResult as FrequencyResult
from relin.study._spec import (
    FrequencySpec as FrequencySpec,
    SpecError as SpecError,
    read_spec as read_spec,
    shipped as shipped,
)
from relin.study._store import Store as Store, StoreError as StoreError
from relin.study._study import (
    Progress as Progress,
    conclude as conclude,
    run_study as run_study,
    stored_study as stored_study,
    train_one as train_one,
)
