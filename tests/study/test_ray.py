"""Jobs in workers of a Ray cluster that is begun on this machine, one of which is killed."""

import collections
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import polars.testing
import pytest
from tiny_studies import TINY

from relin.study import RayExecutor, SpecError, Store, ThreadExecutor, WorkerError, load_study, read_spec, run_study
from relin.study._work import work_of

OWN = """
import os
import jax


def build(key):
    with open({pids!r}, "a") as file:
        file.write(f"{{os.getpid()}}\\n")
    return lambda params, x: x.reshape(x.shape[0], -1) @ params["w"], {{"w": jax.random.normal(key, (64, 10)) / 8}}
"""


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two workers, which ends with the tests; it asks for no token."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # its sockets' paths must be short
    options = ["--head", "--num-cpus=2", f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
    options += [f"--temp-dir={folder}", "--disable-usage-stats", "--object-store-memory=100000000", "--block"]
    code = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", code, "start", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as head:
        try:
            _wait_for(port, head)
            yield f"127.0.0.1:{port}"
        finally:
            head.terminate()
            head.wait(60)
            shutil.rmtree(folder, ignore_errors=True)
            monkeypatch.undo()


def _wait_for(port, head):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert head.poll() is None
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    pytest.fail("The cluster did not begin.")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_killed_worker_loses_nothing_and_nothing_is_computed_twice(cluster, tmp_path, monkeypatch):
    pids, folder, killed = tmp_path / "pids", tmp_path / "ray", []
    file = tmp_path / "own.py"
    file.write_text(OWN.format(pids=str(pids)))
    own = TINY | {"model": f"{file}:build", "seeds": 4, "learning_rates": [0.1, 0.03], "train_limit": 64}
    spec, written, write = read_spec("frequency", overrides=own), collections.Counter(), Store.write

    def counted(store, job, records):
        written[job.name] += 1
        write(store, job, records)

    def kill():
        while sum(written.values()) < 2:
            time.sleep(0.002)
        workers = {int(pid) for pid in pids.read_text().split()} - {os.getpid()}
        assert len(workers) == 2
        os.kill(min(workers), signal.SIGKILL)
        killed.append(min(workers))

    monkeypatch.setattr(Store, "write", counted)
    thread = threading.Thread(target=kill)
    thread.start()
    _, records = run_study(spec, folder, executor=RayExecutor(cluster))
    thread.join()
    assert killed
    assert len(written) >= 4
    assert set(written.values()) == {1}
    _, expected = run_study(spec, tmp_path / "threads", executor=ThreadExecutor(1))
    polars.testing.assert_frame_equal(records, expected, check_exact=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")
def test_an_error_in_a_worker_is_that_error(cluster, tmp_path, monkeypatch):
    """Here of code that finds another file beside it on this machine, and not where a worker runs its text."""
    (tmp_path / "beside.py").write_text("WIDTH = 64\n")
    file = tmp_path / "own.py"
    file.write_text("import beside\n" + OWN.format(pids=str(tmp_path / "pids")))
    spec = read_spec("frequency", overrides=TINY | {"model": f"{file}:build", "train_limit": 64})
    with pytest.raises(SpecError, match=r"own\.py cannot be run \(ModuleNotFoundError: No module named 'beside'\)"):
        run_study(spec, tmp_path / "ray", executor=f"ray:{cluster}")


@pytest.mark.slow
def test_no_cluster_is_told(tmp_path):
    with pytest.raises(WorkerError, match=r"There is no Ray cluster at .*; begin one with `ray start --head`"):
        run_study(read_spec("frequency", overrides=TINY), tmp_path / "study", executor=RayExecutor("nowhere:x"))
    assert not (tmp_path / "study").exists()


def test_a_study_in_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("relin.study._registry._named", {})
    from pathlib import Path

    own = load_study(Path(__file__).parents[2] / "examples" / "own_study")
    with pytest.raises(SpecError, match=f"The study {own.name} is that of a file, which workers of Ray do not have"):
        work_of(read_spec(own.name), None, elsewhere=True)
    assert b"own_study" in work_of(read_spec(own.name), None, elsewhere=False)
