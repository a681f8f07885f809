"""What XLA makes of sums on CPUs, compiled as for users: by itself some releases of it get these wrong."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relin._common.xla import FLAG, WRONG, avoid_wrong_sums, jaxlib_version

pytestmark = pytest.mark.as_shipped

WRONG_HERE = jaxlib_version() in WRONG
COMPUTES_FIRST = "import jax.numpy as jnp; jnp.ones(3) + 1"
PREPARES = """
import jax, jax.numpy as jnp, optax, relin as il
apply, params = il.from_equinox(il.models.build("mlp", (3,), 2, key=jax.random.key(0), width=4))
data = jnp.ones((8, 3)), jnp.zeros(8, int)
"""
LOOKS = {
    "train": "il.train(il.Problem(apply, il.CrossEntropy()), il.WeightSpace(optax.sgd(0.1)), il.Every(2), params, "
    "data, num_steps=2, batch_size=4, key=jax.random.key(0))",
    "kernel": "il.kernel.ntk(apply, params, data[0])",
    "analytic kernel": "il.kernel.analytic_mlp(data[0], depth=1)",
    "metric": "il.kernel.effective_rank(jnp.eye(3))",
    "trace": "import lineax as lx; il.kernel.trace(lx.DiagonalLinearOperator(jnp.ones(3)), key=jax.random.key(0))",
    "vjp": "il.Linearisation(apply, params).vjp(data[0], jnp.ones((8, 2)))",
    "gradient": "il.Problem(apply, il.CrossEntropy()).value_and_grad(params, *data)",
    "loop": "import relin.equinox as loop; "
    "loop.Linearised(il.models.build('mlp', (3,), 2, key=jax.random.key(0)), il.Every(1))",
    "linearisation": "jax.jit(lambda p: il.Linearisation(apply, p).value(p, data[0]))(params)",
}


def test_sums_of_products_along_the_last_axis():
    f, vectors = (
        np.random.default_rng(seed).normal(size=shape) for seed, shape in enumerate([(1000, 10), (10, 1000, 10)])
    )

    def along(f, v):
        return f * jnp.sum(f * v, axis=-1, keepdims=True)

    found = jax.jit(jax.vmap(along, in_axes=(None, 0)))(f.astype("float32"), vectors.astype("float32"))
    np.testing.assert_allclose(found, f * np.sum(f * vectors, axis=-1, keepdims=True), rtol=1e-4, atol=1e-4)


def test_sums_over_three_of_many_rows():
    rows = np.random.default_rng(0).normal(size=(40_000, 3)).astype("float32")
    found = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3, dtype=row.dtype) @ row) ** 2)))(rows)
    np.testing.assert_allclose(found, np.sum(rows**2, axis=-1), rtol=1e-5)


def test_a_mean_times_a_constant_of_zeros():
    h = jnp.asarray(np.random.default_rng(0).normal(size=(256, 5, 2, 5, 2, 16)), "float32")
    found = jax.jit(lambda h: h.mean((2, 4)).reshape(256, -1) @ jnp.zeros((400, 120), "float32"))(h)
    assert np.all(np.asarray(found) == 0)


def test_flags_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_one=1")
    avoid_wrong_sums()
    assert os.environ["XLA_FLAGS"] == (f"{FLAG} --xla_one=1" if WRONG_HERE else "--xla_one=1")
    avoid_wrong_sums()
    assert os.environ["XLA_FLAGS"].count(FLAG) == WRONG_HERE
    own = "--xla_cpu_experimental_ynn_fusion_type="
    monkeypatch.setenv("XLA_FLAGS", own)
    avoid_wrong_sums()
    assert os.environ["XLA_FLAGS"] == own


def test_flags_in_a_file_stay(monkeypatch, tmp_path):
    """XLA takes the variable as a file's name where it begins with no flag."""
    (tmp_path / "flags").write_text("--xla_one=1\n")
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "flags"))
    avoid_wrong_sums()
    assert os.environ["XLA_FLAGS"] == (f"{FLAG} --xla_one=1" if WRONG_HERE else str(tmp_path / "flags"))


def ends(*code, **flags):
    settings = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | flags
    return subprocess.run([sys.executable, "-c", "\n".join(code)], env=settings, capture_output=True, text=True)


@pytest.mark.slow
def test_a_compiler_that_is_wrong_is_refused():
    """It is where JAX computed before relin was imported."""
    tries = (
        "for look in looks:\n    try: exec(look)\n    except RuntimeError as error: print(type(error).__name__, error)"
    )
    ended = ends(COMPUTES_FIRST, PREPARES, f"looks = {list(LOOKS.values())!r}", tries)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("WrongSumsError XLA of jaxlib") == WRONG_HERE * len(LOOKS)
    assert ended.stdout.count("import relin before JAX computes anything") == WRONG_HERE * len(LOOKS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["+reduce", "dot"])
def test_what_was_seen_without_jit_says_nothing_of_what_is_compiled(kind):
    """Each kind of programs that are handed to YNNPACK has faults of its own."""
    code = f"with jax.disable_jit():\n    try: {LOOKS['metric']}\n    except RuntimeError: pass\n{LOOKS['metric']}"
    flags = {"XLA_FLAGS": FLAG.replace("-reduce", kind)} if WRONG_HERE else {}
    ended = ends(PREPARES, code, **flags)
    assert ("WrongSumsError" in ended.stderr) == WRONG_HERE, ended.stderr


FIRST = """
import jax, relin as il
from relin._core.compiler import check_sums
mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
parts = jax.sharding.PartitionSpec("d")
"""
WITHIN = {
    "map over devices": "jax.shard_map(lambda k: (check_sums(), k)[1], mesh=mesh, in_specs=parts, out_specs=parts)"
    "(jax.numpy.ones(4))",
    "mesh and guard": "with jax.set_mesh(mesh), jax.transfer_guard('disallow'): check_sums()",
    "jit": "jax.jit(lambda k: (check_sums(), k)[1])(jax.numpy.ones(4))",
}


@pytest.mark.slow
@pytest.mark.parametrize("place", WITHIN)
def test_it_looks_from_wherever_it_is_called(place):
    ended = ends(FIRST, WITHIN[place], "print('right')", XLA_FLAGS="--xla_force_host_platform_device_count=4")
    assert (ended.returncode, ended.stdout) == (0, "right\n"), ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("before", "flags"), [(COMPUTES_FIRST, FLAG), ("", "no_flag_of_xla=1")], ids=["own", "set"])
def test_with_the_flag_it_trains(before, flags):
    ended = ends(before, PREPARES, LOOKS["train"], **({"XLA_FLAGS": flags} if WRONG_HERE else {}))
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_the_command_says_so_in_a_sentence(tmp_path):
    settings = os.environ | ({"XLA_FLAGS": FLAG.replace("=-", "=+")} if WRONG_HERE else {})
    command = [sys.executable, "-m", "relin", "train", "--steps", "2", "--out", str(tmp_path / "run")]
    ended = subprocess.run(command, env=settings, capture_output=True, text=True)
    assert (ended.returncode == 1) == WRONG_HERE
    assert ("relin: XLA of jaxlib" in ended.stderr) == WRONG_HERE
    assert "Traceback" not in ended.stderr
