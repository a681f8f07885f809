"""Kernels in files that are not as they were written, or not those that are described: refused, never read."""

import os
import shutil

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from ntk_oracle import normal

from core.stopped import StopError, stop_at
from relin.kernel import KernelOnDisk, cka, distance, energy_alignment, ntk, spectrum, target_alignment
from relin.kernel._kernel_file import beside, partial
from relin.kernel._metrics import _targets

PARAMS = {"w": normal(0, 4, 5), "v": normal(2, 5, 3)}
X1, X2 = normal(3, 10, 4), normal(4, 7, 4)


def network(p, x):
    return jnp.tanh(x @ p["w"]) @ p["v"]


def made(path, x=X1, **options):
    return ntk(network, PARAMS, x, **{"outputs": "mean", "out": path, **options})


def change(path, place=(2, 3)):
    kernel = np.lib.format.open_memmap(path, mode="r+")
    kernel[place] += 1
    kernel.flush()
    os.utime(path, ns=(0, 0))  # a clock may be too coarse to tell


def test_an_edited_kernel_is_not_opened_and_made_again(tmp_path):
    path = tmp_path / "k.npy"
    whole = np.load(made(path).path)
    for place in ((2, 3), (9, 0)):
        change(path, place)
        with pytest.raises(ValueError, match=r"k.npy is damaged; call ntk again as it was called, and it is mended"):
            KernelOnDisk(path)
    assert KernelOnDisk(path, verify=False).shape == (10, 10)
    np.testing.assert_array_equal(np.load(made(path).path), whole)
    np.testing.assert_array_equal(KernelOnDisk(path).as_matrix(), whole)


def test_a_kernel_that_changes_while_it_is_open_is_not_read(tmp_path):
    path = tmp_path / "k.npy"
    kernel = made(path)
    change(path)
    for read in (lambda: kernel.mv(jnp.ones(10)), lambda: distance(kernel, kernel), kernel.as_matrix):
        with pytest.raises(ValueError, match=r"k.npy has changed since it was opened; open it anew"):
            read()
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"k.npy has changed since it was opened"):
        spectrum(kernel, 2, key=jax.random.key(0))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="has changed since it was opened"):
        kernel.rows(9, 10)


@pytest.mark.parametrize("other", ["smaller", "transposed", "wider numbers"])
def test_another_array_in_the_place_is_left_alone(tmp_path, other):
    path = tmp_path / "k.npy"
    kernel = np.load(made(path, outputs="full").path)
    if other == "smaller":
        shutil.copy(made(tmp_path / "other.npy", X2, outputs="full").path, path)
    else:
        np.save(path, np.asfortranarray(kernel) if other == "transposed" else kernel.astype(np.longdouble))
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"k.npy is not the kernel that k.npy.json describes; restore it"):
        KernelOnDisk(path)
    with pytest.raises(ValueError, match=r"k.npy is not the kernel that k.npy.json describes; choose another place"):
        made(path, outputs="full")
    assert path.read_bytes() == content


def test_a_whole_kernel_beside_the_description_of_half_of_it(tmp_path):
    path = tmp_path / "k.npy"
    made(tmp_path / "whole.npy")
    with pytest.raises(StopError):
        made(path, progress=stop_at(4))
    shutil.copy(tmp_path / "whole.npy", path)
    with pytest.raises(ValueError, match=r"k.npy is not finished: k.npy.partial has 4 of 10 blocks"):
        KernelOnDisk(path)
    np.testing.assert_array_equal(made(path).as_matrix(), np.load(tmp_path / "whole.npy"))


def test_a_relative_path_is_of_the_folder_where_it_was_named(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    kernel = made("k.npy", progress=lambda done, total: os.chdir(tmp_path / "inner"))
    assert sorted(os.listdir(tmp_path)) == ["inner", "k.npy", "k.npy.json"]
    assert os.listdir() == []
    assert kernel.path == str(tmp_path / "k.npy")


def test_room_is_that_of_what_is_replaced_too(tmp_path, monkeypatch):
    path = tmp_path / "k.npy"
    content = made(path).path and path.read_bytes()
    path.write_bytes(content[:-8])
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100})())
    made(path)
    assert path.read_bytes() == content
    assert not partial(path).exists()
    assert beside(path).exists()


def test_vectors_and_diagonals_of_another_shape(tmp_path):
    kernel, between = made(tmp_path / "k.npy", outputs="full"), made(tmp_path / "between.npy", x2=X2)
    for vector in (jnp.ones((3, 10)), jnp.ones(30)):
        with pytest.raises(ValueError, match=r"k.npy multiplies vectors of shape \(10, 3\), got \("):
            kernel.mv(vector)
    for wide in (between, made(tmp_path / "wide.npy", X2, x2=X1)):
        with pytest.raises(ValueError, match=r"npy has no diagonal: it is of shape"):
            lx.diagonal(wide)


def test_metrics_of_a_kernel_in_a_file_are_of_numbers(tmp_path):
    kernel = made(tmp_path / "k.npy")
    for traced in (
        lambda y: energy_alignment(kernel, y),
        lambda y: target_alignment(kernel, y),
        lambda y: cka(kernel, y @ y.T),
    ):
        with pytest.raises(ValueError, match=r"compared with numbers, got tracers; call the metric outside jax.jit"):
            jax.jit(traced)(jnp.ones((10, 2)))


def test_classes_take_no_more_columns_than_there_are(tmp_path):
    y = jnp.asarray([5, 900, 5, 5, 31, 900, 5, 31, 5, 5])
    kernel = made(tmp_path / "k.npy")
    assert _targets(kernel, y, None).shape == (10, 3)
    dense = kernel.as_matrix()
    expected = cka(dense, jnp.asarray(y[:, None] == y[None, :], dense.dtype))
    for k in (kernel, dense):
        np.testing.assert_allclose(target_alignment(k, y), expected, rtol=1e-12)


def test_a_kernel_in_half_precision_is_centred_as_in_memory(tmp_path):
    x = 1 + jnp.asarray([0, 1, 1, 0, 1, 0], jnp.float16)[:, None] / 16
    kernel = ntk(lambda p, x: x * p, jnp.ones((1, 1), jnp.float16), x, outputs="mean", out=tmp_path / "half.npy")
    dense = np.load(kernel.path)
    assert dense.dtype == np.float16
    other = jnp.asarray(np.outer(x, x) ** 2, jnp.float32)
    np.testing.assert_allclose(cka(kernel, other), cka(dense, other), rtol=1e-4)
    assert jnp.isfinite(cka(kernel, other))


def test_a_disk_that_is_full_on_the_way_is_told_with_the_file(tmp_path):
    import resource

    path, (_, hard) = tmp_path / "k.npy", resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(done, total):
        if done == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))

    try:
        with pytest.raises(OSError, match=r"File too large: '.*k.npy'"):
            made(path, progress=full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    told = []
    kernel = made(path, progress=lambda done, total: told.append(done))
    assert told[0] == 3
    np.testing.assert_allclose(kernel.as_matrix(), ntk(network, PARAMS, X1, outputs="mean"))
