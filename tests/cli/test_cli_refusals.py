import errno
import math

import polars as pl
import pytest
from cli_sample import SMALL, SPEC

from relin.study import FrequencySpec, read_spec
from relin.study._runner import Runner
from relin.study._store import Store


@pytest.fixture
def files(tmp_path):
    (tmp_path / "study.toml").write_text(SPEC)
    (tmp_path / "broken.toml").write_text("steps = [")
    (tmp_path / "field.toml").write_text("stepz = 3")
    (tmp_path / "file").write_text("")
    Store(tmp_path / "other").open(read_spec(str(tmp_path / "study.toml"), overrides={"steps": 7}), 1)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "spec.json").write_text("{")
    Store(tmp_path / "unfinished").open(read_spec(str(tmp_path / "study.toml")), 1)


USAGE = [
    ("study", "Name a study, such as `relin study frequency`"),
    ("study --nope", "No such option: --nope"),
    ("study frequncy", "There is no study named 'frequncy'; name one of damping, essential, frequency"),
    ("study missing.toml", "cannot be read (No such file or directory); check its path"),
    ("study broken.toml", "is not valid TOML"),
    ("study field.toml", "there is no setting stepz (did you mean steps?)"),
    ("study study.toml --data dogits", "the data sets are digits"),
    ("study study.toml --model mpl", "the networks are mlp, cnn"),
    ("study study.toml --steps many", "Invalid value for '--steps'"),
    ("study study.toml --steps 0", "steps: Input should be greater than or equal to 1"),
    ("study study.toml --seeds 1", "seeds: "),
    ("study study.toml --margin -1", "margin: "),
    ("study study.toml --set batch_size", "--set takes NAME=VALUE, got 'batch_size'"),
    ("study study.toml --set =3", "--set takes NAME=VALUE"),
    ("study study.toml --set batch_size=", "--set takes NAME=VALUE"),
    ("study study.toml --set a.b=3", "--set takes NAME=VALUE"),
    ("study study.toml --set wibble=3", "there is no setting wibble"),
    ("study study.toml --set batch_size=5000", "there are 1200 training examples in digits, got 5000"),
    ("study study.toml --set periods=[4]", "periods must include 1"),
    ("study study.toml --set periods=[1,0]", "a period must be a whole number"),
    ("study study.toml --set model_options={widht=3}", "mlp has no option widht"),
    ("study study.toml --out other", "other holds a study with other settings (steps)"),
    ("report", "Missing argument 'folder'"),
    ("report missing", "missing holds no study (no spec.json)"),
    ("train --rate 0", "learning rate must be above 0 and finite, got 0"),
    ("train --rate=-0.1", "learning rate must be above 0 and finite, got -0.1"),
    ("train --rate nan", "learning rate must be above 0"),
    ("train --seed -1", "seed must be from 0 to 2147483647, got -1"),
    ("train --steps -4", "steps: Input should be greater than or equal to 1"),
    ("train --batch-size 4000", "there are 1200 training examples"),
    ("train --batch-size 0", "batch_size: Input should be greater than or equal to 1"),
    ("train --schedule every-0", "The schedule must be every-K"),
    ("train --data dogits", "the data sets are digits"),
    ("train --model mpl", "the networks are mlp"),
    ("frobnicate", "No such command 'frobnicate'"),
]
FAILURES = [
    ("study study.toml --out file", "The system refused to read or write file"),
    ("study study.toml --out /proc/none", "The system refused to read or write /proc/none"),
    ("study study.toml --data-dir missing", "relin: --data-dir missing does not exist"),
    ("study study.toml --out damaged", "spec.json is not a study's settings; restore it"),
    ("report damaged", "spec.json is not a study's settings; restore it"),
    ("report unfinished", "does not hold a whole study yet (4 of 4 packs of runs are missing so far); run the same"),
    ("train --out file", "The system refused to read or write file"),
    ("data --data-dir missing", "does not exist"),
]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("line", "message", "expected"), [(*case, 2) for case in USAGE] + [(*case, 1) for case in FAILURES]
)
def test_mistakes_are_told_in_one_sentence(relin_command, line, message, expected):
    code, _, err = relin_command(*line.split())
    assert message in err
    assert code == expected
    assert err.startswith("relin: ")
    assert err.count("\n") == 1
    assert err.rstrip().endswith(".")


def test_values_are_read_as_a_file_has_them(monkeypatch):
    from relin.cli._study import read_settings

    given = read_settings(
        ["steps=5", "decay=none", "loss='squared-error'", 'periods=[1, "inf"]', "model_options={width=3}"]
    )
    assert given == {
        "steps": 5,
        "decay": "none",
        "loss": "squared-error",
        "periods": [1, "inf"],
        "model_options": {"width": 3},
    }


def test_what_nobody_foresaw_is_one_sentence_too(relin_command, monkeypatch):
    def fail(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of\nmemory")

    monkeypatch.setattr(Runner, "train", fail)
    code, _, err = relin_command("train", *SMALL)
    assert code == 1
    assert "Something unexpected failed (RuntimeError: RESOURCE_EXHAUSTED: out of memory); nothing is kept of" in err
    assert err.count("\n") == 1
    monkeypatch.setenv("RELIN_TRACEBACK", "1")
    assert "Traceback" in relin_command("train", *SMALL)[2]


def test_a_refused_write_while_training_is_told(relin_command, monkeypatch, tmp_path):
    (tmp_path / "study.toml").write_text(SPEC)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "packs/x.parquet")

    monkeypatch.setattr(Runner, "train", lambda *_: pl.DataFrame())
    monkeypatch.setattr(Store, "write", full)
    code, _, err = relin_command("study", "study.toml")
    assert code == 1
    assert "The system refused to read or write packs/x.parquet (No space left on device)" in err


def test_the_settings_are_listed_with_their_meaning(relin_command):
    code, out, err = relin_command("study", "--settings", "--set", "periods=[1, 3]")
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    for name in FrequencySpec.model_fields:
        assert f"│ {name} " in out
    assert "[1, 3]" in out
    assert "Which question the study" in out
    assert math.isclose(0.5, read_spec("frequency").margin)


def test_data_sets_fit_80_columns_and_say_how_to_get_them(relin_command):
    code, out, err = relin_command("data")
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "…" not in out
    for name in ("digits", "mnist1d", "mnist", "fashion-mnist", "cifar10", "cifar100"):
        assert name in out
