"""Jobs in processes: the same records, workers that die, code of one's own, refusals."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import polars.testing
import pytest

from relin.study import ProcessExecutor, SpecError, ThreadExecutor, WorkerError, _processes, _work, read_spec, run_study
from relin.study._executor import executor_of
from relin.study._ray import RayExecutor

TINY = {
    "train_limit": 64, "steps": 8, "seeds": 3, "select_seeds": 1, "periods": [1, "inf"], "sparse_periods": [],
    "tolerances": [], "learning_rates": [0.1, 0.03], "num_records": 2, "batch_size": 16, "probe_size": 16,
    "model_options": {"width": 4, "depth": 1},
}  # fmt: skip
OWN = """
import jax


def build(key):
    return lambda params, x: x.reshape(x.shape[0], -1) @ params["w"], {"w": jax.random.normal(key, (64, 10)) / 8}
"""


def own(folder):
    """The settings of a study of a network in a file."""
    (folder / "own.py").write_text(OWN)
    return read_spec("frequency", overrides=TINY | {"model": f"{folder}/own.py:build", "model_options": {}})


@pytest.mark.slow
def test_the_records_are_those_of_threads_though_a_worker_is_killed(tmp_path):
    killed, spec, folder = [], own(tmp_path), tmp_path / "processes"

    def kill():
        while not (folder.exists() and len(list(folder.glob("packs/*.parquet"))) >= 2):
            time.sleep(0.002)
        for worker in multiprocessing.active_children()[:1]:
            os.kill(worker.pid, signal.SIGKILL)
            killed.append(worker.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    _, records = run_study(spec, folder, executor=ProcessExecutor(2))
    thread.join()
    assert killed
    assert multiprocessing.active_children() == []
    assert list((folder / "locks").iterdir()) == []
    _, expected = run_study(spec, tmp_path / "threads", executor=ThreadExecutor(1))
    polars.testing.assert_frame_equal(records, expected, check_exact=True)


class Workers:
    """What a pool starts, in place of processes; an answer that is none is that of one that dies."""

    def __init__(self, *answers):
        self.answers, self.started, self.ended = list(answers), 0, 0

    def __call__(self, work):
        self.started += 1
        return self

    def ask(self, job, folder, waiting):
        waiting()
        answer = self.answers.pop(0)
        if answer is None:
            raise _processes._DiedError
        return answer

    def end(self):
        self.ended += 1
        return -9


@pytest.fixture
def pool(monkeypatch):
    def make(*answers):
        monkeypatch.setattr(_processes, "_Worker", workers := Workers(*answers))
        return _processes._Pool(1), workers

    return make


JOB = SimpleNamespace(name="a-job")


def test_a_job_may_end_two_workers(pool, tmp_path):
    made, workers = pool(None, None, b"records", b"more")
    assert made.compute(b"", JOB, lambda *_: None, tmp_path) == b"records"
    assert made.compute(b"", JOB, lambda *_: None, tmp_path) == b"more"
    assert (workers.started, workers.ended) == (3, 2)
    made.end()
    assert workers.ended == 3


def test_a_job_that_ends_three_is_told(pool, tmp_path):
    made, workers = pool(None, None, None, b"records")
    with pytest.raises(
        WorkerError, match=r"The job a-job ended its process 3 times \(exit code -9\), for want of memory"
    ):
        made.compute(b"", JOB, lambda *_: None, tmp_path)
    assert made.compute(b"", JOB, lambda *_: None, tmp_path) == b"records"  # another one
    assert workers.started == 4


def test_an_error_in_a_worker_is_raised_here_and_the_worker_goes_on(pool, tmp_path):
    made, workers = pool(ValueError("batch_size: too large"), b"records")
    with pytest.raises(ValueError, match="batch_size: too large"):
        made.compute(b"", JOB, lambda *_: None, tmp_path)
    assert made.compute(b"", JOB, lambda *_: None, tmp_path) == b"records"
    assert (workers.started, workers.ended) == (1, 0)


def test_whoever_stops_ends_the_worker(pool, tmp_path):
    made, workers = pool(b"for nobody")

    made.end()
    with pytest.raises(WorkerError, match="The study has ended"):
        made.compute(b"", JOB, lambda *_: None, tmp_path)
    made, workers = pool(b"for nobody")
    with pytest.raises(KeyboardInterrupt):
        made.compute(b"", JOB, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt), tmp_path)
    assert (workers.started, workers.ended) == (1, 1)


@pytest.mark.parametrize("place", ["progress", "start"])
def test_an_error_of_the_system_here_is_no_death_of_a_worker(pool, tmp_path, monkeypatch, place):
    made, workers = pool(b"records", b"records", b"records")

    def full(*_):
        raise OSError(28, "No space left on device")

    if place == "start":
        monkeypatch.setattr(_processes, "_Worker", full)
    with pytest.raises(OSError, match="No space left"):
        made.compute(b"", JOB, full if place == "progress" else lambda *_: None, tmp_path)
    assert workers.started == workers.ended == (place == "progress")


def ask(connection, tmp_path):
    worker = object.__new__(_processes._Worker)
    worker._connection = connection
    return worker.ask("a job", tmp_path, lambda: None)


def test_a_worker_is_known_to_be_dead_by_its_pipe(tmp_path):
    ours, theirs = multiprocessing.Pipe()
    thread = threading.Thread(target=lambda: (theirs.recv(), theirs.close()))
    thread.start()
    with pytest.raises(_processes._DiedError):  # while it is waited for
        ask(ours, tmp_path)
    thread.join()
    with pytest.raises(_processes._DiedError):  # before it is asked
        ask(ours, tmp_path)
    ours.close()


def test_an_error_of_the_system_in_a_worker_is_that_error(pool, tmp_path):
    made, workers = pool(FileNotFoundError(2, "No such file", "data.npz"), b"records")
    with pytest.raises(FileNotFoundError, match=r"data\.npz"):
        made.compute(b"", JOB, lambda *_: None, tmp_path)
    assert (workers.started, workers.ended) == (1, 0)


def test_an_object_of_this_process_is_refused_before_anything_is_made(tmp_path):
    from relin.study import Frequency

    def build(key):
        return lambda params, x: x, {"w": jnp.zeros(3)}

    study = Frequency(network=build, **{name: value for name, value in TINY.items() if name != "model_options"})
    message = "model: build is an object of this process, which others cannot get; define it in a file"
    for elsewhere in (False, True):
        with pytest.raises(SpecError, match=message):
            _work.work_of(study.spec, None, elsewhere=elsewhere)


def test_what_another_machine_is_told(tmp_path, monkeypatch):
    """It has no file of ours: the text of code is sent, and found under its place."""
    ours = own(tmp_path)
    work = pickle.loads(_work.work_of(ours, "data", elsewhere=True))
    (tmp_path / "own.py").unlink()
    assert work.data_dir == os.path.abspath("data")
    assert "jax_compilation_cache_dir" not in work.configuration
    assert work.configuration["jax_platforms"] == "cpu"  # a core, also where there are accelerators
    assert "jax_default_device" not in work.configuration
    [(place, digest, text)] = work.code
    from relin.study import _code

    monkeypatch.setattr(_code, "_IN_MEMORY", {})
    with pytest.raises(SpecError, match="cannot be read"):
        _code.load(place, digest)
    with pytest.raises(SpecError, match=r"The code of .*own\.py:build has changed"):
        _code.receive(place, digest, text + b"\n")
    _code.receive(place, digest, text)
    assert _code.load(place, digest).__name__ == "build"


TWICE = """
import jax.numpy as jnp

with open({runs!r}, "a") as file:
    file.write("run ")


def build(key):
    return lambda params, x: x.reshape(x.shape[0], -1) @ params["w"], {{"w": jnp.zeros((64, 10))}}


def load():
    return (jnp.ones((8, 64)), jnp.arange(8)), (jnp.ones((8, 64)), jnp.arange(8))
"""


@pytest.mark.slow
def test_a_file_that_is_received_is_run_once_and_removed(tmp_path):
    """Of all that it names, in a process of its own, which ends."""
    (tmp_path / "both.py").write_text(TWICE.format(runs=str(tmp_path / "runs")))
    named = {"model": f"{tmp_path}/both.py:build", "data": f"{tmp_path}/both.py:load", "model_options": {}}
    work = pickle.loads(_work.work_of(read_spec("frequency", overrides=TINY | named), None, elsewhere=True))
    assert len(work.code) == 2
    (tmp_path / "code").write_bytes(pickle.dumps(work.code))
    (tmp_path / "temporary").mkdir()
    code = "import pickle, sys; from relin.study import _code\nfor one in pickle.load(open('code', 'rb')): "
    code += "_code.receive(*one); assert callable(_code.load(*one[:2]))"
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "runs").read_text() == "run "
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("name", ["a::b.npz", "x.npy,y.npy", "table.csv#y", "bytes:texts"])
def test_data_in_files_are_named_to_other_machines(tmp_path, monkeypatch, name):
    """Each machine has them; they are neither code to be sent nor an object of this process."""
    monkeypatch.setattr("relin.datasets._identity.identity", lambda data: {"sha256": "0"})
    spec = read_spec("frequency", overrides=TINY | {"data": name})
    assert spec.digests == {"data": "sha256:0"}
    for elsewhere in (False, True):
        work = pickle.loads(_work.work_of(spec, None, elsewhere=elsewhere))
        assert work.settings["data"] == name
        assert work.code == ()


def test_the_configuration_of_jax_is_handed_over():
    spec, devices = read_spec("frequency", overrides=TINY), jax.local_devices(backend="cpu")
    for value, told, place in (
        (devices[-1], None, ("cpu", len(devices) - 1)),
        ("cpu", "cpu", None),
        (None, None, None),
    ):
        before = jax.config.values["jax_default_device"]
        jax.config.update("jax_default_device", value)
        jax.config.update("jax_random_seed_offset", 7)
        try:
            work = pickle.loads(_work.work_of(spec, None, elsewhere=False))
            jax.config.update("jax_default_device", None)
            _work._configure(work)
            assert jax.config.values["jax_default_device"] == value
            here, there = work.configuration, pickle.loads(_work.work_of(spec, None, elsewhere=True)).configuration
        finally:
            jax.config.update("jax_default_device", before)
            jax.config.update("jax_random_seed_offset", 0)
        assert (here["jax_default_device"], work.device) == (told, place)
        assert here["jax_random_seed_offset"] == there["jax_random_seed_offset"] == 7


@pytest.mark.parametrize("text", ["", "thread", "threads:", "threads:0", "threads:x", "processes:-1", "ray:", "x:3"])
def test_what_is_no_executor(text):
    with pytest.raises(ValueError, match=rf"An executor is threads, .* got '{text}'; for example processes:2"):
        executor_of(text)


def test_executors_by_name():
    assert executor_of("threads:3").workers == 3
    assert executor_of("processes:2").workers == 2
    assert isinstance(executor_of("processes"), ProcessExecutor)
    assert executor_of("threads").workers >= 1
    assert isinstance(executor_of("ray"), RayExecutor)
    assert executor_of("ray:head:6379").address == "head:6379"
