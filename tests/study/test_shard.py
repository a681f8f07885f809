"""Several processes share a study's folder: each job is computed once, and the last process answers."""

import random
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from test_store import JOBS, SPEC, records_of

from relin._common.lease import InUseError, LeaseLostError
from relin.study import OthersComputeError, Shard, Store, ThreadExecutor
from relin.study._computation import Computation, Tracker
from relin.study._runner import Runner


class Sharing:
    """Computes the jobs of a stage in a folder as one of several processes would, in no time."""

    def __init__(self, folder, shard, seconds=lambda: 0.0, workers=1):
        self.computed, self.seconds, self.tracker = [], seconds, Tracker(lambda progress: None)
        self.computation = Computation(
            Store(folder), lambda: self.train, ThreadExecutor(workers), self.tracker, pytest.fail, shard
        )

    def train(self, job, advance, folder):
        time.sleep(self.seconds())
        self.computed.append(job)
        return records_of(job)

    def __call__(self, is_last=True):
        self.computation(JOBS, 0, "a stage", is_last)


@pytest.fixture
def folder(tmp_path):
    Store(tmp_path / "study").open(SPEC, 1)
    return tmp_path / "study"


@pytest.mark.parametrize(("number", "count"), [(1, 1), (1, 2), (2, 2), (2, 3), (9, 12), (12, 12)])
def test_alone_a_shard_takes_its_own_part_first_and_then_all_others(folder, number, count):
    alone = Sharing(folder, Shard(number, count))
    alone()
    own = JOBS[number - 1 :: count]
    assert alone.computed[: len(own)] == own
    assert set(alone.computed) == set(JOBS)
    assert len(alone.computed) == len(JOBS)
    after = Sharing(folder, Shard(1 + number % count, count))
    after()
    assert after.computed == []


def test_the_parts_are_all_jobs_each_once():
    for count in range(1, 8):
        parts = [
            Shard(number, count).in_order(JOBS)[: len(JOBS[number - 1 :: count])] for number in range(1, count + 1)
        ]
        assert sorted(job.name for part in parts for job in part) == sorted(job.name for job in JOBS)


def test_the_last_stage_is_left_to_who_holds_its_jobs(folder):
    with Store(folder).claim(JOBS[0]), Store(folder).claim(JOBS[2]):
        shard = Sharing(folder, Shard(1, 2))
        message = rf"others still compute 2 jobs of runs in {folder}; whoever ends last writes the report"
        with pytest.raises(OthersComputeError, match=message):
            shard()
    assert set(shard.computed) == set(JOBS) - {JOBS[0], JOBS[2]}
    again = Sharing(folder, Shard(1, 2))
    again()
    assert set(again.computed) == {JOBS[0], JOBS[2]}


@pytest.mark.parametrize(("shard", "is_last"), [(Shard(1, 2), False), (None, True), (Shard(1, 1), True)])
def test_others_are_waited_for_before_the_last_stage_and_without_shards(folder, shard, is_last):
    waiting, done = Sharing(folder, shard), threading.Event()
    with Store(folder).claim(JOBS[0]):
        thread = threading.Thread(target=lambda: (waiting(is_last), done.set()))
        thread.start()
        while len(waiting.computed) < len(JOBS) - 1:
            time.sleep(0.01)
        assert not done.wait(0.3)
        Store(folder).write(JOBS[0], records_of(JOBS[0]))
    thread.join(30)
    assert done.is_set()
    assert JOBS[0] not in waiting.computed


def test_a_job_that_another_process_took_over_on_the_way_is_looked_at_again(folder):
    one, other, lost = Sharing(folder, None), Sharing(folder, None), []

    def lose(job, advance, unfinished):
        if job == JOBS[1] and not lost:
            lost.append(job)
            other.computation.store.write(job, records_of(job))
            raise LeaseLostError
        return one.train(job, advance, unfinished)

    replace(one.computation, trainer=lambda: lose)(JOBS, 0, "a stage", True)
    assert one.computed == [job for job in JOBS if job not in lost]
    assert all(other.computation.store.finished(job) for job in JOBS)


@pytest.mark.parametrize("error", [InUseError, LeaseLostError])
def test_only_a_state_that_is_in_use_at_the_start_is_done_without(tmp_path, error):
    asked = []

    def train(job, progress, checkpoint=None):
        asked.append(checkpoint)
        if checkpoint is not None:
            raise error("of another")
        return "records"

    train_kept: Any = Runner.train_kept
    with pytest.raises(LeaseLostError) if error is LeaseLostError else nullcontext():
        assert (
            train_kept(SimpleNamespace(train=train, provenance={}), JOBS[0], lambda done, total: None, tmp_path)
            == "records"
        )
    assert len(asked) == (2 if error is InUseError else 1)


@pytest.mark.parametrize("seed", range(12))
def test_each_job_is_computed_once_and_somebody_ends_last(tmp_path, seed):
    folder, rng = tmp_path, random.Random(seed)
    Store(folder).open(SPEC, 1)
    shards = [Sharing(folder, Shard(n + 1, 3), lambda: rng.choice([0, 0.001, 0.01]), workers=2) for n in range(3)]
    answered = []

    def share(shard):
        time.sleep(rng.choice([0, 0.02]))
        try:
            shard()
            answered.append(shard)
        except OthersComputeError:
            pass

    threads = [threading.Thread(target=share, args=(shard,)) for shard in shards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(job.name for shard in shards for job in shard.computed) == sorted(job.name for job in JOBS)
    assert answered


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "a/4", "1/0", "-1/4", "1/4/2", "1.5/4", "9999999999/4"])
def test_what_is_no_shard(text):
    with pytest.raises(ValueError, match=rf"A shard is K/N with K from 1 to N, got '?{text}'?; for example 3/16"):
        Shard.parse(text)


@pytest.mark.parametrize(
    ("task", "first", "last", "count", "expected"),
    [
        ("1", "1", "16", "16", Shard(1, 16)),
        ("16", "1", "16", "16", Shard(16, 16)),
        ("0", "0", "15", "16", Shard(1, 16)),
        ("15", "0", "15", "16", Shard(16, 16)),
        ("7", "5", "8", "4", Shard(3, 4)),
        ("7", "5", "", "4", Shard(3, 4)),
        ("3", "1", "7", "4", None),  # --array=1-7:2
        ("9", "1", "9", "3", None),  # --array=1,3,9
        ("2", "1", "x", "3", None),
    ],
)
def test_slurm(task, first, last, count, expected):
    variables = {f"SLURM_ARRAY_TASK_{name}": value for name, value in zip(
        ("ID", "MIN", "MAX", "COUNT"), (task, first, last, count), strict=True)}  # fmt: skip
    if expected is None:
        with pytest.raises(
            ValueError, match=rf"must have consecutive numbers to be shards, got task {task} of {count}"
        ):
            Shard.of_slurm(variables)
    else:
        assert Shard.of_slurm(variables) == expected


def test_no_array_of_slurm():
    assert Shard.of_slurm({}) is None
    assert Shard.of_slurm({"SLURM_JOB_ID": "1"}) is None
