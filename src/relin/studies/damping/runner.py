"""The runs of the damping study: iterative linearisation of period K, and Gauss–Newton damped by λ = 1/(ηκ)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import relin as il
from relin.kernel import distance, ntk
from relin.studies.damping.settings import DampingSpec
from relin.study._descent_jobs import DescentJob
from relin.study._descent_runner import Advance, DescentRunner, Row, Start

_BY_POLYNOMIALS, _FEW = 4096, 2000
"""Longer stretches are taken on the kernel's eigenvectors, where there are no more outputs than the second."""
_TOLERANCE = 1e-8
"""Of the linear systems of Gauss–Newton."""


class DampingRunner(DescentRunner[DampingSpec]):
    """Takes one outer step after the other: K steps of descent at an anchor, or one Gauss–Newton step."""

    def run(self, job: DescentJob, start: Start, progress: Advance) -> list[Row]:
        step = self._outer_step(job, start)
        initial = _kernel(self.apply, start.params, self._kernel_probe)
        rows = [self._row(0, start, start.params, initial)]
        params, diverged_at = start.params, None
        for outer in range(1, job.steps + 1):
            solution = step(params)
            params = solution.params
            row = self._row(outer, start, params, initial)
            if solution.result is il.Result.diverged or not np.isfinite(row["train_loss"]):
                diverged_at = outer
                break
            rows.append(row)
            progress(outer, job.steps)
        result = "successful" if diverged_at is None else "diverged"
        return [{**row, "result": result, "diverged_at": diverged_at} for row in rows]

    def _outer_step(self, job: DescentJob, start: Start) -> Any:
        count = int(job.number or 1) if job.way == "every" else 1
        if job.way == "every":
            few = self.training[1].size <= _FEW
            method = "eigh" if few and count > _BY_POLYNOMIALS else "chebyshev"
            solver, schedule = il.SpectralDescent(start.rate, method=method), il.Never()
        else:
            damping = jnp.asarray(1 / (start.rate * (job.number or 1)), self._dtype)
            conjugate_gradients = il.ConjugateGradients(rtol=_TOLERANCE if self._dtype == jnp.float64 else None)
            solver, schedule = il.GaussNewton(damping, linear_solver=conjugate_gradients), il.Every(1)
        options = {"num_steps": count, "key": jax.random.key(0), "throw": False, "progress": False}
        return lambda params: il.train(start.problem, solver, schedule, params, self.training, **options)

    def _row(self, outer: int, start: Start, params: Any, initial: Array) -> Row:
        test = _outputs(self.apply, params, self.test)
        validation = _outputs(self.apply, params, self.validation)
        kept = outer == 0 or outer in self.spec.compared_after
        kernel = _kernel(self.apply, params, self._kernel_probe)
        return {
            "step": outer,
            "train_loss": float(_loss(start.problem, params, *self.training)),
            "test_accuracy": self.accuracy(test, "test"),
            "validation_accuracy": self.accuracy(validation, "validation"),
            "kernel_distance": float(distance(kernel, initial)),
            "outputs": self.on_probe(test) if kept else None,
        }

    @property
    def _kernel_probe(self) -> Array:
        return jax.tree.map(lambda part: part[: self.spec.kernel_probe], self.validation)


@partial(jax.jit, static_argnums=0)
def _outputs(apply: Any, params: Any, x: Array) -> Array:
    return apply(params, x)


@partial(jax.jit, static_argnums=0)
def _kernel(apply: Any, params: Any, x: Array) -> Any:
    return ntk(apply, params, x, outputs="mean")


@partial(jax.jit, static_argnums=0)
def _loss(problem: il.Problem, params: Any, x: Array, y: Array) -> Array:
    return problem.loss.mean(problem.apply(params, x), y)
