"""Solvers: how the linearised problem is advanced."""

from relin._solver._base import AbstractSolver as AbstractSolver, SolverState as SolverState
from relin._solver._weight_space import WeightSpace as WeightSpace, current_params as current_params
