"""The empirical neural tangent kernel: computed exactly, as an operator, by its spectrum; and how far it has moved."""

from relin.kernel._analytic import (
    AnalyticKernel as AnalyticKernel,
    analytic_cnn as analytic_cnn,
    analytic_mlp as analytic_mlp,
)
from relin.kernel._lanczos import Spectrum as Spectrum, spectrum as spectrum
from relin.kernel._metrics import (
    cka as cka,
    distance as distance,
    effective_rank as effective_rank,
    energy_alignment as energy_alignment,
    relative_change as relative_change,
    target_alignment as target_alignment,
    velocity as velocity,
)
from relin.kernel._modules import by_module as by_module
from relin.kernel._ntk import ntk as ntk
from relin.kernel._on_disk import KernelOnDisk as KernelOnDisk
from relin.kernel._operator import (
    FeatureOperator as FeatureOperator,
    NTKOperator as NTKOperator,
    features as features,
)
from relin.kernel._probes import (
    Estimate as Estimate,
    SpectralDensity as SpectralDensity,
    frobenius_norm as frobenius_norm,
    log_density as log_density,
    trace as trace,
)
