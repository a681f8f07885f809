"""Records go to loggers as they are made, and are what the solution holds."""

import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles
from relin._logger._base import numbers

LOSS = il.SquaredError()


class Collected(il.AbstractLogger):
    def __init__(self):
        self.records, self.closed = [], False

    def log(self, step, values, lane=None):
        self.records.append((step, values, lane))

    def close(self):
        self.closed = True


class Failing(il.AbstractLogger):
    def log(self, step, values, lane=None):
        if step > 0:
            raise OSError("the disk is full")


def run(rate):
    solver = il.WeightSpace(optax.sgd(rate))
    return il.Run(il.Problem(oracles.mlp, LOSS), solver, il.Every(2), oracles.mlp_params(), oracles.KEY)


def trained(*loggers, rate=0.1, **options):
    options = {"num_steps": 6, "record_every": 2, "observers": [il.Performance(oracles.data(LOSS))]} | options
    one = run(rate)
    return il.train(
        one.problem, one.solver, one.schedule, one.params, oracles.data(LOSS), key=one.key, loggers=loggers, **options
    )


def lanes(*loggers, rates=(0.1, 0.05), **options):
    options = {"num_steps": 6, "record_every": 2} | options
    return il.train_lanes(run, jnp.asarray(rates), oracles.data(LOSS), loggers=loggers, **options)


def assert_same(logged, records):
    assert [step for step, _ in logged] == records["step"].tolist()
    for row, (_, values) in enumerate(logged):
        assert values.keys() == records.keys() - {"step"}
        for name, value in values.items():
            np.testing.assert_array_equal(value, records[name][row])


@pytest.mark.parametrize("drive", ["compiled", "host"])
def test_records_of_a_run(drive):
    collected = Collected()
    solution = trained(collected, drive=drive)
    assert_same([(step, values) for step, values, _ in collected.records], solution.records)
    assert {lane for *_, lane in collected.records} == {None}
    assert not collected.closed


@pytest.mark.parametrize("drive", ["map", "vmap", "host"])
def test_records_of_lanes_end_with_a_divergence(drive):
    collected = Collected()
    solutions = lanes(collected, rates=(0.1, 1e30, 0.05), drive=drive, num_steps=60, record_every=20)
    assert solutions[1].result is il.Result.diverged
    assert len(solutions[1].records["step"]) < len(solutions[0].records["step"])
    for lane, solution in enumerate(solutions):
        assert_same([(step, values) for step, values, of in collected.records if of == lane], solution.records)


def test_each_record_is_there_before_training_goes_on(tmp_path):
    path, seen = tmp_path / "made" / "run.jsonl", []
    with il.JSONLines(path) as logger:
        trained(logger, progress=lambda done, total: seen.append((done, len(path.read_text().splitlines()))))
    assert seen[-1] == (6, 4)
    assert (2, 2) in seen


def test_a_failed_logger_is_said_once_and_nothing_is_lost():
    collected = Collected()
    with pytest.warns(
        RuntimeWarning, match="Failing could not log step 2 and is left out .*: the disk is full"
    ) as said:
        solution = trained(Failing(), collected)
    assert len(said) == 1
    assert solution.result is il.Result.successful
    assert len(collected.records) == 4


def test_json_lines(tmp_path):
    path = tmp_path / "run.jsonl"
    for append in (False, True):
        with il.JSONLines(path, append) as logger:
            logger.log(3, {"loss": np.asarray(np.inf), "by_class": np.asarray([0.5, np.nan]), "n": np.asarray(2)}, 1)
    with il.JSONLines(tmp_path / "lanes.jsonl") as logger:
        solutions = lanes(logger)
    line = {"step": 3, "lane": 1, "loss": None, "by_class": [0.5, None], "n": 2}
    assert [json.loads(text) for text in path.read_text().splitlines()] == [line, line]
    logged = [json.loads(text) for text in (tmp_path / "lanes.jsonl").read_text().splitlines()]
    for lane, solution in enumerate(solutions):
        losses = [record["training_loss"] for record in logged if record["lane"] == lane]
        assert losses[0] is None  # nothing is trained yet
        assert losses[1:] == solution.records["training_loss"][1:].tolist()


def test_numbers_of_every_type():
    values = {"loss": jnp.asarray(0.5, jnp.bfloat16), "on": True, "steps": np.int64(3), "name": "relin", "z": 1j}
    assert numbers({name: np.asarray(value) for name, value in values.items()}) == {
        "loss": 0.5,
        "on": 1.0,
        "steps": 3.0,
    }


def test_json_lines_begins_anew(tmp_path):
    for _ in range(2):
        with il.JSONLines(tmp_path / "run.jsonl") as logger:
            logger.log(0, {"loss": np.asarray(1.0)})
    assert (tmp_path / "run.jsonl").read_text() == '{"step": 0, "loss": 1.0}\n'


@pytest.mark.parametrize("loggers", [il.JSONLines, ["run.jsonl"], "run.jsonl"])
def test_what_is_no_logger_is_refused(loggers):
    one = run(0.1)
    with pytest.raises(TypeError, match="`loggers` must be a list of relin loggers"):
        il.train(
            one.problem,
            one.solver,
            one.schedule,
            one.params,
            oracles.data(LOSS),
            num_steps=1,
            key=one.key,
            loggers=loggers,
        )
