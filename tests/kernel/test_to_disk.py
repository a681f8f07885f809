"""Kernels in files: the values of those in memory, whole or to be gone on with, and never another one's."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import disk_child
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ntk_oracle import assert_close, dense, normal, select

from core.stopped import StopError, stop_at
from relin._common.files import as_json
from relin._common.lease import SoleWriter
from relin.kernel import KernelOnDisk, _kernel_file, ntk
from relin.kernel._file_blocks import mirror_image
from relin.kernel._kernel_file import beside, described, partial

KINDS = ("full", "mean", "diagonal", 1)
FOUR_A_SIDE = 10
"""Blocks of a symmetric kernel of four blocks a side."""


def network(p, x):
    return jnp.tanh(x @ p["w"] + p["b"][None]) @ p["v"]


PARAMS = {"w": normal(0, 4, 5), "b": normal(1, 5), "v": normal(2, 5, 3)}
X1, X2 = normal(3, 10, 4), normal(4, 7, 4)
SQUARE, RECTANGLE = dense(network, PARAMS, X1), dense(network, PARAMS, X1, X2)


@pytest.mark.parametrize("outputs", KINDS)
def test_values_are_those_of_explicit_jacobians(tmp_path, outputs):
    told = []
    kernel = ntk(network, PARAMS, X1, outputs=outputs, out=tmp_path / "k.npy", progress=lambda *at: told.append(at))
    values = np.load(kernel.path)
    assert_close(values, select(SQUARE, outputs))
    np.testing.assert_array_equal(values, mirror_image(values))
    assert told == [(done, FOUR_A_SIDE) for done in range(FOUR_A_SIDE + 1)]
    between = ntk(network, PARAMS, X1, X2, outputs=outputs, out=str(tmp_path / "between.npy"))
    assert_close(np.load(between.path), select(RECTANGLE, outputs))
    assert not between.symmetric
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "between.npy",
        "between.npy.json",
        "k.npy",
        "k.npy.json",
    ]


@pytest.mark.parametrize("working_set", [1, 9000])
def test_any_working_set(tmp_path, working_set):
    kernel = ntk(network, PARAMS, X1, out=tmp_path / "k.npy", working_set=working_set)
    assert_close(np.load(kernel.path), SQUARE)


def test_a_stopped_kernel_goes_on_and_ends_with_the_same_bits(tmp_path):
    def made(name, progress=None):
        return ntk(network, PARAMS, X1, outputs="mean", out=tmp_path / name, progress=progress)

    whole = made("whole.npy")
    with pytest.raises(StopError):
        made("k.npy", stop_at(4))
    with pytest.raises(ValueError, match=r"k.npy is not finished: k.npy.partial has 4 of 10 blocks; call ntk again"):
        KernelOnDisk(tmp_path / "k.npy")
    left, other = tmp_path / ".k.npy.json.abc.part", tmp_path / ".mine.part"
    for path in (left, other):
        path.touch()
    told = []
    kernel = made("k.npy", lambda done, total: told.append(done))
    assert (left.exists(), other.exists()) == (False, True)
    assert told == list(range(4, FOUR_A_SIDE + 1))
    assert Path(kernel.path).read_bytes() == Path(whole.path).read_bytes()
    made("k.npy", lambda done, total: told.append(done))
    assert told[-1] == FOUR_A_SIDE
    assert told[-2] == FOUR_A_SIDE  # nothing is made again


@pytest.mark.parametrize("place", [(0, 9), (9, 0), (5, 5)])
@pytest.mark.parametrize("finished", [True, False])
def test_a_damaged_block_is_made_again(tmp_path, monkeypatch, place, finished):
    path = tmp_path / "k.npy"
    whole = np.load(ntk(network, PARAMS, X1, outputs=0, out=path).path)
    damaged = np.lib.format.open_memmap(path, mode="r+")
    damaged[place] += 1
    damaged.flush()
    if not finished:
        path.rename(partial(path))
    told, read = [], []
    compare = _kernel_file.as_written
    monkeypatch.setattr(_kernel_file, "as_written", lambda *given: read.append(1) or compare(*given))
    kernel = ntk(network, PARAMS, X1, outputs=0, out=path, progress=lambda done, total: told.append(done))
    assert told == [9, 10]
    assert read == [1], "a large file is read once"
    np.testing.assert_array_equal(np.load(kernel.path), whole)


def test_a_file_that_was_cut_short_is_made_again(tmp_path):
    path = tmp_path / "k.npy"
    content = Path(ntk(network, PARAMS, X1, out=path).path).read_bytes()
    with pytest.raises(StopError):
        ntk(network, PARAMS, X1, out=tmp_path / "other.npy", progress=stop_at(3))
    partial(tmp_path / "other.npy").write_bytes(content[:1000])
    ntk(network, PARAMS, X1, out=tmp_path / "other.npy")
    assert (tmp_path / "other.npy").read_bytes() == content
    path.write_bytes(content[:1000])
    with pytest.raises(ValueError, match=r"k.npy is damaged; call ntk again as it was called, and it is mended"):
        KernelOnDisk(path)
    ntk(network, PARAMS, X1, out=path)
    assert path.read_bytes() == content


def another(p, x):
    return jnp.sin(x @ p["w"] + p["b"][None]) @ p["v"]


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"params": {**PARAMS, "b": PARAMS["b"] + 1}}, "parameters"),
        ({"x1": X1 + 1}, "x1"),
        ({"x2": X1}, "x2"),
        ({"outputs": 1}, "outputs"),
        ({"apply": another}, "network"),
        ({"working_set": 10**6, "batch_size": 2}, "batch_size, working_set"),
        ({"params": jax.tree.map(jnp.float32, PARAMS), "x1": jnp.float32(X1)}, "parameters, x1, dtype"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_kernel_is_refused_with_what_differs(tmp_path, changed, names, finished):
    path, asked = tmp_path / "k.npy", {"apply": network, "params": PARAMS, "x1": X1, "outputs": 0, "out": None}
    asked["out"] = path
    if finished:
        ntk(**asked)
    else:
        with pytest.raises(StopError):
            ntk(**asked, progress=stop_at(2))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=rf"k.npy is of a kernel that differs in {names}; choose another place"):
        ntk(**{**asked, **changed})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_what_is_no_kernel_is_left_alone(tmp_path):
    path = tmp_path / "k.npy"
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"k.npy is there without k.npy.json, which would say of which kernel it is"):
        ntk(network, PARAMS, X1, out=path)
    with pytest.raises(ValueError, match=r"k.npy has no k.npy.json beside it"):
        KernelOnDisk(path)
    beside(path).write_bytes(b"{}")
    with pytest.raises(ValueError, match=r"k.npy.json is damaged; restore it, or remove it"):
        ntk(network, PARAMS, X1, out=path)
    beside(path).write_bytes(as_json({"format": 9}))
    with pytest.raises(ValueError, match=r"k.npy.json has another format"):
        KernelOnDisk(path)
    assert path.read_bytes() == b"mine"


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "k.npy"

    def again(done, total):
        if done == 2:
            with pytest.raises(ValueError, match=rf"k.npy is in use by process {os.getpid()} of the machine .*; wait"):
                ntk(network, PARAMS, X1, out=path)

    assert_close(np.load(ntk(network, PARAMS, X1, out=path, progress=again).path), SQUARE)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["k.npy", "k.npy.json"]


@pytest.mark.parametrize("when", [2, FOUR_A_SIDE])
def test_who_lost_the_file_writes_no_more(tmp_path, when):
    """It was suspended for more than a minute, and another process goes on."""
    path = tmp_path / "k.npy"

    def lose(done, total):
        if done == when:
            (tmp_path / "k.npy.lease").write_text('{"token": "of another"}')

    with pytest.raises(ValueError, match=r"k.npy was taken over by another process"):
        ntk(network, PARAMS, X1, out=path, progress=lose)
    assert len(described(path).blocks) == when
    assert sorted(file.name for file in tmp_path.iterdir()) == ["k.npy.json", "k.npy.lease", "k.npy.partial"]


def test_what_another_process_has_made_meanwhile_is_whole(tmp_path, monkeypatch):
    path, take, made = tmp_path / "k.npy", SoleWriter.take, []

    def late(sole):
        if not made:
            made.append(1)
            ntk(network, PARAMS, X1, out=path)
        take(sole)

    monkeypatch.setattr(SoleWriter, "take", late)
    told = []
    assert_close(np.load(ntk(network, PARAMS, X1, out=path, progress=lambda *at: told.append(at)).path), SQUARE)
    assert told == [(FOUR_A_SIDE, FOUR_A_SIDE)]


def test_another_machine_is_told(tmp_path):
    path = tmp_path / "k.npy"
    with pytest.raises(StopError):
        ntk(network, PARAMS, X1, out=path, progress=stop_at(1))
    content = json.loads(beside(path).read_text())
    content.pop("relin-digest")
    beside(path).write_bytes(as_json({**content, "environment": "another machine"}))
    with pytest.warns(UserWarning, match=r"k.npy was begun by another machine, and goes on with relin"):
        ntk(network, PARAMS, X1, out=path)


def test_a_kernel_that_is_not_finite_is_told_with_its_example(tmp_path):
    x = X1.at[7].set(jnp.nan)
    with pytest.raises(ValueError, match=r"The kernel must be finite, got one that is not: .*example 7\b"):
        ntk(network, PARAMS, x, outputs="mean", out=tmp_path / "k.npy")
    with pytest.raises(ValueError, match=r"The kernel must be finite, got one that is not: .*example 7 of x2"):
        ntk(network, PARAMS, X2, x, outputs="mean", out=tmp_path / "between.npy")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"out": "k.zarr"}, r"`out` must be a file that ends in .npy, got 'k.zarr'"),
        ({"out": 3}, r"`out` must be the path of a file, got int"),
        ({"progress": print}, r"`progress` tells of the blocks of a kernel in a file, got no `out`"),
        ({"out": "k.npy", "per_layer": True}, r"`out` holds one kernel, got per_layer=True"),
    ],
)
def test_refusals(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ntk(network, PARAMS, X1, **given)


def test_no_file_of_tracers_of_coupled_examples_or_of_what_no_array_file_holds(tmp_path):
    def coupled(p, x):
        return network(p, x) - network(p, x).mean(axis=0, keepdims=True)

    path = tmp_path / "k.npy"
    with pytest.raises(ValueError, match=r"got tracers; call ntk with `out` outside jax.jit"):
        jax.jit(lambda p: ntk(network, p, X1, out=path))(PARAMS)
    with pytest.raises(ValueError, match=r"is made as a whole, and not in a file; leave `out` out"):
        ntk(coupled, PARAMS, X1, out=path, coupled=True)
    half = jax.tree.map(jnp.bfloat16, PARAMS)
    with pytest.raises(ValueError, match=r"`out` holds float16, float32 or float64, got a kernel of bfloat16"):
        ntk(network, half, jnp.bfloat16(X1), out=path)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_told_before(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(ValueError, match=r"k.npy takes 7.2e-06 GB, and 1e-07 GB of the disk are free"):
        ntk(network, PARAMS, X1, out=tmp_path / "k.npy")
    with pytest.raises(OSError, match=r"No such file or directory: '.*nowhere/k.npy"):
        ntk(network, PARAMS, X1, out=tmp_path / "nowhere" / "k.npy")


@pytest.mark.slow
def test_killed_while_a_block_is_written_and_in_little_memory(tmp_path):
    """In a process of its own, which is killed by SIGKILL, and whose memory is measured before."""
    ended = subprocess.run([sys.executable, disk_child.__file__, tmp_path], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    size = (tmp_path / "large.npy").stat().st_size
    assert size >= 4 * disk_child.LARGE**2
    assert int(ended.stdout) < size / 2
    large = np.load(tmp_path / "large.npy", mmap_mode="r")
    np.testing.assert_allclose(large[4000, 20:30], large[20:30, 4000])
    with jax.enable_x64(False):
        subject, told = disk_child.subject(60), []
        with pytest.raises(ValueError, match=r"killed.npy is not finished"):
            KernelOnDisk(tmp_path / "killed.npy")
        ntk(disk_child.apply, *subject, out=tmp_path / "killed.npy", progress=lambda done, total: told.append(done))
        assert 0 < told[0] < FOUR_A_SIDE
        whole = ntk(disk_child.apply, *subject, out=tmp_path / "whole.npy")
    assert (tmp_path / "killed.npy").read_bytes() == Path(whole.path).read_bytes()
