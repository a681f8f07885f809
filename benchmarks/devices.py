"""What each of four devices holds of one run, and what they exchange at a step, by the compiler's count."""

import collections
import contextlib
import itertools
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.stages import Compiled

import relin as il
from benchmarks._measure import heading, row, table
from relin._loop import program, recorded
from relin._loop.compiled import _call
from relin._loop.placement import placement_of
from relin._loop.preparation import prepared

DEVICES, EXAMPLES, BATCH, STEPS = 4, 64, 32, 8
WIDTHS = (256, 256, 256, 8)
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def main() -> None:
    """In a process of its own, whose CPU is four devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
    code = "from benchmarks.devices import measure; measure()"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def measure() -> None:
    meshes = {"one device": None} | {f"`{name}` of {DEVICES}": _mesh(name) for name in ("fsdp", "data")}
    programs = {(k, name): compiled_steps(k, mesh) for k in (1, 4) for name, mesh in meshes.items()}
    size = sum(a * b for a, b in itertools.pairwise(WIDTHS))
    heading(f"Memory of a step of an MLP of {size:,} parameters with Adam, bytes a device")
    table(("", *meshes))
    for what, field in (("held between steps", "argument_size_in_bytes"), ("working memory", "temp_size_in_bytes")):
        for k in (1, 4):
            memory = [programs[k, name].memory_analysis() for name in meshes]
            row(f"K = {k}, {what}", *(f"{getattr(each, field):,}" for each in memory))
    heading(f"What devices exchange in {STEPS} steps, a line for each loop, and for what is in none")
    table(("over", "K", "exchanged, kinds and shapes"))
    for (k, name), compiled in programs.items():
        for found in exchanged(compiled):
            row(name, k, "; ".join(f"{count} × {each}" for each, count in sorted(found.items())))


def _mesh(name: str) -> Mesh:
    return Mesh(np.asarray(jax.devices()), (name,))


def compiled_steps(k: int, mesh: Mesh | None) -> Compiled:
    """The program of some steps, as `train` compiles it."""
    random = np.random.default_rng(0)
    params = [random.normal(0, 0.1, shape).astype(np.float32) for shape in itertools.pairwise(WIDTHS)]
    data = random.normal(size=(EXAMPLES, WIDTHS[0])).astype(np.float32), random.integers(0, WIDTHS[-1], EXAMPLES)
    problem, placement = il.Problem(_network, il.CrossEntropy()), placement_of(mesh, params, data)
    with placement.entered() if placement else contextlib.nullcontext():
        run = il.Run(problem, il.WeightSpace(optax.adam(0.01)), il.Every(k), params, jax.random.key(0))
        options = STEPS, None, BATCH, None, None, (), ()
        plan = prepared(run, data, *options, "compiled", ("compiled",), placement)
        programs = plan.programs(lambda run: run, plan.run)
        state, _ = programs.call(recorded.start_on, (), plan.data)
        arguments = *programs.call.args, program.steps, (state,), plan.data, STEPS
        return _call.lower(*arguments, count=STEPS).compile()


def _network(params: list[jax.Array], x: jax.Array) -> jax.Array:
    for weights in params[:-1]:
        x = jnp.tanh(x @ weights)
    return x @ params[-1]


def exchanged(compiled: Compiled) -> list[collections.Counter[str]]:
    """What devices exchange in a turn of each loop, and outside of loops, in the order of the program's text."""
    found, place = collections.defaultdict[str, collections.Counter[str]](collections.Counter), ""
    for line in (compiled.as_text() or "").splitlines():
        if line and not line.startswith((" ", "}")):
            place = line.split(" (")[0]
        if match := re.search(rf"= (.*?) ({'|'.join(KINDS)})\(", line):
            found[place].update(f"{match[2]} {shape}" for shape in re.findall(r"\w+\[[\d,]*\]", match[1]))
    return list(found.values())
