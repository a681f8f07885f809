"""The overhead of each part that makes sparse feature updates stable: its step over one of plain `Every(64)`."""

import jax
import jax.numpy as jnp
import optax

import relin as il
from benchmarks._measure import heading, row, seconds, table
from benchmarks._subjects import OPTIMISER, relin_steps

BATCH, STEPS, PERIOD = 64, 1024, 64
SHRUNK = il.WeightSpace(OPTIMISER, on_relinearise=0.5)
NEVER_REACHED = 1e9
"""A tolerance at which a schedule looks and never re-linearises: the cost of looking alone."""

PARTS: dict[str, tuple[il.AbstractSchedule, il.WeightSpace, il.AbstractSafeguard | None]] = {
    "plain": (il.Every(PERIOD), il.WeightSpace(OPTIMISER), None),
    "WhenError, default": (il.WhenError(NEVER_REACHED), il.WeightSpace(OPTIMISER), None),
    "WhenError, at most 80": (il.WhenError(NEVER_REACHED, max_check_every=80), il.WeightSpace(OPTIMISER), None),
    "WhenLossGap, default": (il.WhenLossGap(NEVER_REACHED), il.WeightSpace(OPTIMISER), None),
    "WhenFunctionMoves, default": (il.WhenFunctionMoves(NEVER_REACHED), il.WeightSpace(OPTIMISER), None),
    "LineSearch": (il.Every(PERIOD), il.WeightSpace(OPTIMISER), il.LineSearch()),
    "TrustRegion": (il.Every(PERIOD), il.WeightSpace(OPTIMISER), il.TrustRegion(1.0)),
    "proximal": (il.Every(PERIOD), il.WeightSpace(OPTIMISER, proximal=0.1), None),
    "shrink": (il.Every(PERIOD), SHRUNK, None),
    "clipping": (il.Every(PERIOD), il.WeightSpace(optax.chain(optax.clip_by_global_norm(1.0), OPTIMISER)), None),
}


def main() -> None:
    heading("The overhead of each part, MLP 64-128-128-10, batch 64, Every(64) where the schedule is no part")
    data = il.datasets.load("digits").train
    data = jnp.asarray(data.x), jnp.asarray(data.y)
    apply, params = il.from_equinox(il.models.build("mlp", (8, 8, 1), 10, key=jax.random.key(0), width=128, depth=2))
    problem = il.Problem(apply, il.CrossEntropy())
    loops = []
    for schedule, solver, safeguard in PARTS.values():
        # as `train` does: numbers as arrays, so that the period is no constant of the program
        schedule = jax.tree.map(jnp.asarray, schedule)
        loops.append(relin_steps(problem, params, data, BATCH, schedule, STEPS, False, solver, safeguard))
    times = seconds(loops)
    table(("part", "step ms", "over plain"))
    for name, time in zip(PARTS, times, strict=True):
        row(name, time / STEPS * 1e3, time / times[0])
