"""Everything public, by its public name. `import relin` gives these names, and imports JAX at their first use."""

from relin import adapters as adapters, datasets as datasets, kernel as kernel, models as models, preset as preset
from relin._core.augment import (
    AbstractAugmentation as AbstractAugmentation,
    Chain as Chain,
    Flip as Flip,
    PaddedCrop as PaddedCrop,
)
from relin._core.batches import (
    AbstractBatches as AbstractBatches,
    FullBatch as FullBatch,
    Shuffled as Shuffled,
    WithReplacement as WithReplacement,
)
from relin._core.context import Context as Context
from relin._core.errors import Result as Result, TrainingError as TrainingError
from relin._core.linearise import Linearisation as Linearisation, Taylor as Taylor
from relin._core.loss import (
    AbstractLoss as AbstractLoss,
    CrossEntropy as CrossEntropy,
    SquaredError as SquaredError,
    TargetCheck as TargetCheck,
)
from relin._core.problem import Problem as Problem
from relin._logger import (
    AbstractLogger as AbstractLogger,
    JSONLines as JSONLines,
    MLflow as MLflow,
    TensorBoard as TensorBoard,
    WeightsAndBiases as WeightsAndBiases,
)
from relin._loop.checkpoint import Checkpoint as Checkpoint
from relin._loop.predict import predict as predict
from relin._loop.preflight import Preflight as Preflight, check as check
from relin._loop.program import Run as Run
from relin._loop.solution import LaneSolutions as LaneSolutions, Solution as Solution, load as load
from relin._loop.stopping import EarlyStopping as EarlyStopping
from relin._loop.train import train as train, train_lanes as train_lanes
from relin._observer import (
    AbstractObserver as AbstractObserver,
    FrozenKernelAccuracy as FrozenKernelAccuracy,
    KernelDrift as KernelDrift,
    LinearisationError as LinearisationError,
    Movement as Movement,
    Performance as Performance,
    Sharpness as Sharpness,
)
from relin._safeguard import (
    AbstractSafeguard as AbstractSafeguard,
    GridSearch as GridSearch,
    LineSearch as LineSearch,
    StepScale as StepScale,
    TrustRegion as TrustRegion,
)
from relin._schedule import (
    AbstractSchedule as AbstractSchedule,
    After as After,
    AtSteps as AtSteps,
    EqualTime as EqualTime,
    Every as Every,
    Geometric as Geometric,
    Never as Never,
    PerParameter as PerParameter,
    Until as Until,
    WhenError as WhenError,
    WhenFunctionMoves as WhenFunctionMoves,
    WhenLossGap as WhenLossGap,
)
from relin._solver import (
    AbstractAveraging as AbstractAveraging,
    AbstractMultiStepSolver as AbstractMultiStepSolver,
    AbstractSolver as AbstractSolver,
    AbstractStepSolver as AbstractStepSolver,
    AbstractWindowRate as AbstractWindowRate,
    ConjugateGradients as ConjugateGradients,
    CosineWindow as CosineWindow,
    DisplacementBound as DisplacementBound,
    ExponentialAverage as ExponentialAverage,
    FunctionSpace as FunctionSpace,
    GaussNewton as GaussNewton,
    RateCap as RateCap,
    SolverState as SolverState,
    SpectralDescent as SpectralDescent,
    UniformAverage as UniformAverage,
    WarmUpWindow as WarmUpWindow,
    WeightSpace as WeightSpace,
)
from relin.adapters import (
    from_equinox as from_equinox,
    from_linen as from_linen,
    from_nnx as from_nnx,
    from_torch as from_torch,
    scaled as scaled,
    trainable as trainable,
)

_FORMER = {"AbstractStretchSolver": AbstractMultiStepSolver, "Verdict": StepScale}


def __getattr__(name: str) -> type:
    if name in _FORMER:
        return _FORMER[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
