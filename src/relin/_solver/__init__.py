"""Solvers: how the linearised problem is advanced."""

from relin._solver._averaging import (
    AbstractAveraging as AbstractAveraging,
    ExponentialAverage as ExponentialAverage,
    Iterates as Iterates,
    UniformAverage as UniformAverage,
)
from relin._solver._base import (
    AbstractMultiStepSolver as AbstractMultiStepSolver,
    AbstractSolver as AbstractSolver,
    AbstractStepSolver as AbstractStepSolver,
    MultiStep as MultiStep,
    SolverState as SolverState,
    current_params as current_params,
)
from relin._solver._conjugate_gradients import ConjugateGradients as ConjugateGradients
from relin._solver._displacement_bound import DisplacementBound as DisplacementBound
from relin._solver._filters import Descent as Descent
from relin._solver._function_space import FunctionSpace as FunctionSpace
from relin._solver._gauss_newton import GaussNewton as GaussNewton
from relin._solver._matrix_free import GaussNewtonProducts as GaussNewtonProducts
from relin._solver._optax import (
    GradientBound as GradientBound,
    all_finite as all_finite,
    check_optimiser as check_optimiser,
    forgiving as forgiving,
    grows_with_gradient as grows_with_gradient,
)
from relin._solver._spectral import SpectralDescent as SpectralDescent
from relin._solver._weight_space import WeightSpace as WeightSpace
from relin._solver._window import (
    AbstractWindowRate as AbstractWindowRate,
    CosineWindow as CosineWindow,
    RateCap as RateCap,
    WarmUpWindow as WarmUpWindow,
)
