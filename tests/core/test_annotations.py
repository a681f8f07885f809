"""Public functions keep their annotations: shapes and types checked at run time in a process of its own.

Only there, because a checked call is traced several times slower, and refusals would be the checker's, not ours.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import relin

CORE = sorted(f"relin.{path.stem}" for path in Path(relin.__file__).parent.glob("_*") if path.stem != "__init__")

CHECKED = """
import jax
jax.config.update("jax_enable_x64", True)
import jaxtyping
jaxtyping.install_import_hook({core}, "beartype.beartype")
import jax.numpy as jnp, optax
import relin as il
x = jnp.ones((6, 2)) * jnp.arange(6)[:, None]
problem = il.Problem(lambda p, x: jnp.tanh(x @ p["w"]), il.CrossEntropy())
params, y = {{"w": jnp.eye(2)}}, jnp.arange(6) % 2
solver = il.WeightSpace(optax.sgd(0.1))
observers = (il.Performance((x, y), chunk_size=4), il.LinearisationError(x), il.Movement())
options = dict(num_steps=3, key=jax.random.key(0), batch_size=4, observers=observers, record_every=2)
{body}
print("checked")
"""

BODIES = {
    "training": """
il.train(problem, solver, il.After(il.WhenError(0.1, 1, x), 1), params, (x, y), **options)
il.train(problem, solver, il.PerParameter({"w": il.WhenError(0.1, 1)}), params, (x, y), **options)
for schedule in (il.Every(1), il.Until(il.WhenError(0.1, 1), 5)):
    il.train(problem, solver, schedule, params, (x, y), drive="host", **options)
within = il.WeightSpace(optax.sgd(0.1), averaging=il.ExponentialAverage(0.9), bound=il.DisplacementBound(0.1))
il.train(problem, within, il.PerParameter({"w": il.Every(2)}), params, (x, y), **options)
gauss_newton = il.GaussNewton(0.1, "levenberg-marquardt", "convex", "functions")
il.train(problem, gauss_newton, il.Every(1), params, (x, y), **options)
il.predict(il.Problem(problem.apply, il.SquaredError()), params, (x, y), x, time=1.0)
make = lambda k: il.Run(problem, solver, il.Every(k), params, jax.random.key(0))
il.train_lanes(make, jnp.asarray([1, 2]), (x, y), num_steps=2)
""",
    "parts": """
lin = problem.linearise(params)
lin.value(params, x), lin.jvp(params, x), lin.network(params, x), lin.at_anchor(x), lin.moved(params)
lin.vjp(x, jnp.ones((6, 2)))
for loss, targets in ((il.CrossEntropy(0.1), y), (il.SquaredError(), jnp.ones((6, 2)))):
    outputs = jnp.ones((6, 2))
    loss(outputs, targets), loss.mean(outputs, targets), loss.correct(outputs, targets)
    loss.gradient(outputs, targets), loss.hessian_product(outputs, targets, outputs)
for schedule in (il.Every(2), il.Geometric(1, 2.0), il.AtSteps([1]), il.Never(), il.Until(il.Every(3), 5)):
    schedule.due(jnp.asarray(3))
il.Chain(il.Flip(), il.PaddedCrop(1))(jax.random.key(0), jnp.ones((2, 4, 4, 1)))
try:
    il.CrossEntropy()(jnp.ones((6, 2)), jnp.ones((5,), int))
except jaxtyping.TypeCheckError:
    pass
else:
    raise AssertionError("annotations are not checked")
""",
}


@pytest.mark.parametrize("part", BODIES)
@pytest.mark.slow
def test_annotations_hold_at_run_time(part):
    command = [sys.executable, "-c", CHECKED.format(core=CORE, body=BODIES[part])]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout == "checked\n"
