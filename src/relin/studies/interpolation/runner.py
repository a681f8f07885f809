"""The runs of the interpolation study: every K, and what its two ends are compared with."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

import relin as il
from relin.studies.interpolation.settings import InterpolationSpec
from relin.study._descent_jobs import DescentJob
from relin.study._descent_runner import Advance, DescentRunner, Row, Start

_PIECE = 2**14
"""Steps of the plain loop between two looks at it."""


class InterpolationRunner(DescentRunner[InterpolationSpec]):
    """Trains for T steps at one period, or in a plain loop, or takes the closed form."""

    def run(self, job: DescentJob, start: Start, progress: Advance) -> list[Row]:
        if job.way == "every":
            return [self._trained(job, start, progress)]
        if job.way == "ordinary":
            params, loss = self._plain(start, progress)
            outputs = start.problem.apply(params, self.test)
            return [self._row(outputs, outputs, loss, None if np.isfinite(loss) else job.steps)]
        how = {"steps": job.steps, "learning_rate": start.rate} if job.way == "regression" else {}
        outputs = il.predict(start.problem, start.params, self.training, self.test, **how)
        return [self._row(outputs, None, None, None)]

    def _trained(self, job: DescentJob, start: Start, progress: Advance) -> Row:
        period = job.number or 1.0
        lazy = period >= job.steps
        stepped = period <= self.spec.stepped_up_to and not lazy
        solution = il.train(
            start.problem,
            _stepping(start.rate) if stepped else il.SpectralDescent(start.rate),
            il.Never() if lazy else il.Every(int(period)),
            start.params,
            self.training,
            num_steps=job.steps,
            key=jax.random.key(0),
            progress=progress,
            record_every=min(job.steps, _PIECE) if stepped else None,
            throw=False,
        )
        linearised = start.problem.linearise(solution.anchor).value(solution.displacement, self.test)
        network = start.problem.apply(solution.params, self.test)
        loss = start.problem.loss.mean(
            start.problem.linearise(solution.anchor).value(solution.displacement, self.training[0]), self.training[1]
        )
        finite = solution.diverged_at is None and bool(np.isfinite(loss))
        return self._row(linearised, network, float(loss), None if finite else solution.diverged_at or job.steps)

    def _plain(self, start: Start, progress: Advance) -> tuple[Any, float]:
        """Ordinary training in a loop of its own, with Optax alone."""
        (x, y), optimiser = self.training, optax.sgd(start.rate)

        @jax.jit
        def piece(params: Any, count: Array) -> Any:
            def step(number: Array, params: Any) -> Any:
                gradient = jax.grad(lambda p: start.problem.loss.mean(start.problem.apply(p, x), y))(params)
                updates, _ = optimiser.update(gradient, optimiser.init(params), params)
                return optax.apply_updates(params, updates)

            return jax.lax.fori_loop(0, count, step, params)

        params, steps = start.params, self.spec.steps
        for first in range(0, steps, _PIECE):
            count = min(_PIECE, steps - first)
            params = piece(params, jnp.asarray(count))
            progress(first + count, steps)
        return params, float(start.problem.loss.mean(start.problem.apply(params, x), y))

    def _row(self, outputs: Any, network: Any, loss: float | None, diverged_at: int | None) -> Row:
        return {
            "step": self.spec.steps,
            "train_loss": loss,
            "test_accuracy": self.accuracy(outputs, "test"),
            "network_test_accuracy": None if network is None else self.accuracy(network, "test"),
            "outputs": self.on_probe(outputs),
            "network_outputs": None if network is None else self.on_probe(network),
            "result": "successful" if diverged_at is None else "diverged",
            "diverged_at": diverged_at,
        }


@cache
def _stepping(rate: float) -> il.WeightSpace:
    """One object a rate: an optimiser equals no other one, and another one would be compiled anew."""
    return il.WeightSpace(optax.sgd(rate))
