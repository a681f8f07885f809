"""The studies of the kernel, really trained, from the command to the page."""

import shutil

import polars as pl
import polars.testing
import pytest

from relin.studies.kernel import Kernel
from relin.studies.width import Width
from relin.study import SpecError, read_spec, run_study, stored_study
from relin.study._condition import every
from relin.study._grid import RunSpec, comparison_jobs, selection_jobs
from relin.study._runner import Runner

TINY = ["--steps", 40, "--seeds", 3, "--set", "select_seeds=1", "--set", "kernel_probe=16", "--set", "batch_size=32"]
TINY += ["--set", "learning_rates=[0.1]", "--set", "probe_size=16"]
KERNEL = [*TINY, "--set", "periods=[1, 16, 'inf']", "--set", "model_options={width=8, depth=1}"]
KERNEL += ["--set", "num_records=5", "--set", "frozen_every=5", "--set", "frozen_steps=20"]
WIDTH = [*TINY, "--set", "widths=[8, 32]", "--set", "model_options={depth=1}", "--set", "num_records=2"]


@pytest.mark.slow
def test_kernel_study_from_the_command_to_the_page(relin_command, tmp_path):
    folder = tmp_path / "study"
    code, out, err = relin_command("study", "kernel", "--out", "study", *KERNEL)
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "THE KERNEL CHANGED" not in out
    assert "at K = ∞ it did not move at all" in " ".join(out.replace("│", " ").split())
    _, result, records = stored_study(folder)
    lazy = records.filter(schedule="never")
    for name, value in (("kernel_distance", 0), ("kernel_change", 0), ("kernel_velocity", 0)):
        assert (lazy[name] == value).all()
    assert lazy["target_alignment"].n_unique() == 3  # one a seed
    assert result.constancy.num_checked >= 3 * 5
    assert result.constancy.num_violated == 0
    assert result.kernel("every-1").change.mean > 0.01
    taken = records.drop_nulls("frozen_kernel_accuracy").filter(pl.col("frozen_kernel_accuracy").is_not_nan())
    assert set(taken["schedule"]) == {"every-1"}
    assert sorted(taken["seed"].unique()) == [1, 2]  # not those that chose the rates
    assert sorted(taken["step"].unique()) == [0, 40]
    assert (folder / "report.html").is_file()
    assert pl.read_csv(folder / "frozen.csv")["step"].to_list() == [0, 40]
    resumes(folder, records)


def resumes(folder, records):
    """A job that is missing, the last to have begun, is computed again, to the same records."""
    last = max((folder / "packs").glob("compare-*"), key=lambda path: path.stat().st_mtime_ns)
    last.unlink()
    _, again = run_study(stored_settings(folder), folder)
    assert last.exists()
    polars.testing.assert_frame_equal(again, records, check_exact=True)


def stored_settings(folder):
    return read_spec(str(folder / "spec.json"))


@pytest.mark.slow
def test_width_study_from_the_command_to_the_page(relin_command, tmp_path):
    folder = tmp_path / "study"
    code, out, err = relin_command("study", "width", "--out", "study", *WIDTH)
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    _, result, records = stored_study(folder)
    assert sorted(records["width"].unique()) == [8, 32]
    runs = records.filter(step=0).select("width", "schedule", "seed")
    assert runs.height == runs.unique().height == 2 * 2 * 3
    assert [at.width for at in result.widths] == [8, 32]
    first = records.filter(step=0, schedule="every-1")
    for at in result.widths:
        assert at.deviation.mean == pytest.approx(first.filter(width=at.width)["analytic_deviation"].mean())
    assert result.widths[1].deviation.mean < result.widths[0].deviation.mean
    assert result.change_slope is not None
    assert pl.read_csv(folder / "table.csv")["width"].to_list() == [8, 32]
    resumes(folder, records)
    moved = tmp_path / "alone"
    moved.mkdir()
    for name in ("spec.json", "records.parquet"):
        shutil.copy(folder / name, moved / name)
    assert stored_study(moved)[1] == result


def test_jobs_of_a_width_study_hold_one_width_each():
    spec = read_spec("width", overrides={"widths": [8, 32], "seeds": 3, "select_seeds": 1, "finalists": None})
    jobs = [job for cell in spec.cells() for job in selection_jobs(cell, 4)]
    assert {job.place for job in jobs} == {("width", 8), ("width", 32)}
    assert all(len({run.place for run in job.runs}) == 1 for job in jobs)
    assert len({job.name for job in jobs}) == len(jobs)
    runs = [run for job in jobs for run in job.runs]
    assert len(runs) == len(set(runs)) == 2 * 2 * len(spec.learning_rates)
    assert sum(job.cost for job in jobs) == 2 * len(spec.learning_rates) * spec.steps * (8 + 32)


def test_kernels_are_taken_in_jobs_of_their_own_at_the_rate_of_lazy_training():
    spec = read_spec("kernel", overrides={"periods": [1, 4, "inf"], "seeds": 4, "select_seeds": 3})
    ranked = {"equal-steps": {"every-1": [0.03], "every-4": [0.01], "never": [0.3]}}

    def compare(spec):
        study = Kernel(spec)
        return comparison_jobs(spec, ranked, 1, study.extra_steps, study.extra_rate(ranked))

    (other, taken) = compare(spec)
    assert [run.condition.name for run in taken.runs] == ["every-1"]
    assert taken.extra_rate == 0.3
    assert {run.condition.name for run in other.runs} == {"every-4", "never"}
    assert other.extra_rate is None
    own = spec.model_copy(update={"frozen_rate": 0.5})
    assert compare(own)[1].extra_rate == 0.5
    assert compare(own)[1].name != taken.name
    assert taken.runs == (RunSpec(every(1), spec.steps, 0.03, 3),)


@pytest.mark.parametrize(
    ("study", "overrides", "message"),
    [
        ("kernel", {"frozen_methods": ["every-3"]}, "frozen_methods must be among the schedules of the study, every-1"),
        ("kernel", {"frozen_methods": ["evry-1"]}, "frozen_methods: The schedule must be every-K"),
        ("kernel", {"periods": [4, "inf"]}, "periods must include 1"),
        ("kernel", {"frozen_every": 0}, "frozen_every: "),
        ("width", {"widths": [16]}, "at least two widths are needed"),
        ("width", {"model_options": {"width": 3}}, "the width is set by widths; leave it out"),
        ("width", {"model_options": {"parametrisation": "standard"}}, 'must be "ntk"'),
    ],
)
def test_wrong_settings_are_refused(study, overrides, message):
    with pytest.raises(SpecError, match=message):
        read_spec(study, overrides=overrides)


@pytest.mark.slow
def test_the_limit_is_that_of_the_networks_options():
    """Deviation falls with width only from the kernel that the network tends to."""
    deviations = []
    for width in (16, 256):
        spec = read_spec(
            "width",
            overrides={"widths": [width, 512], "steps": 2, "kernel_probe": 16, "num_records": 1},
        )
        spec = spec.model_copy(update={"model_options": {"parametrisation": "ntk", "depth": 3, "activation": "erf"}})
        records = Runner(spec, study=Width(spec)).train(selection_jobs(spec.cells()[0], 1)[0])
        deviations.append(records["analytic_deviation"][0])
    assert deviations[1] < 0.5 * deviations[0]
    assert deviations[1] < 0.2


@pytest.mark.parametrize(
    "option",
    [
        {"model_options": {"activation": "tanh"}},
        pytest.param({"model": "cnn", "data": "mnist1d"}, marks=pytest.mark.slow),
    ],
)
def test_without_a_closed_form_there_is_no_deviation(option):
    spec = read_spec("width", overrides={"widths": [4, 8], "steps": 2, "kernel_probe": 8, **option})
    names = [type(observer).__name__ for observer in Width(spec).observers(None, Runner(spec))]
    assert ("AnalyticDeviation" in names) == (option.get("model") == "cnn")
    assert "KernelDrift" in names
