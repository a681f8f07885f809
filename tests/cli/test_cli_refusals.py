import errno
import io
import math
import shlex
import subprocess
import sys

import polars as pl
import pytest
from cli_sample import SMALL, SPEC

from relin._common.files import write_atomically
from relin._common.words import listed, shortened
from relin.studies.frequency.settings import FrequencySpec
from relin.study import read_spec
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
    ('study study.toml --set model_options={\\"widht\\":3}', "mlp has no option widht"),
    ("study study.toml --set periods=[1,", "--set periods takes a list or a table, got '[1,'; for example"),
    ("study study.toml --out other", "other holds a study with other settings (steps)"),
    ("report", "Name the folder of a study, or runs made elsewhere"),
    ("report missing", "missing holds no study (no spec.json)"),
    ("train --rate 0", "learning rate must be above 0 and finite, from 1e-30 to 1e30, got 0"),
    ("train --rate=-0.1", "learning rate must be above 0 and finite, from 1e-30 to 1e30, got -0.1"),
    ("study ''", "Name a study, such as"),
    ("study '' --settings", "Name a study, such as"),
    ("study study.toml --data ''", "the data sets are digits"),
    ("study study.toml --out ''", "Invalid value for '--out': name a folder, or . for the current one"),
    ("study study.toml --data-dir ''", "Invalid value for '--data-dir': name a folder"),
    ("study study.toml --seeds 5000", "seeds: Input should be less than or equal to 1000"),
    ("study kernel --data diabetes", "the targets of diabetes are floats, and so values to predict, got cross-entropy"),
    ("report ''", "Invalid value for 'folder': name a folder"),
    ("ntk ' '", "Invalid value for 'folder': name a folder"),
    ("train --data text:", "the data sets are digits"),
    ("train --data bytes:", "the data sets are digits"),
    ("train --data table:#target", "the data sets are digits"),
    ("train --model ''", "the networks are mlp"),
    ("train --rate 1e39", "learning rate must be above 0 and finite, from 1e-30 to 1e30, got 1e+39"),
    ("train --set model_options={width=100000}", "would have 10,007,600,010 parameters, and at most 2,147,483,648"),
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
    ("report unfinished", "does not hold a whole study yet (4 of 4 jobs of runs are missing so far); run the same"),
    ("train --out file", "The system refused to read or write file"),
    ("data --data-dir missing", "does not exist"),
]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("line", "message", "expected"), [(*case, 2) for case in USAGE] + [(*case, 1) for case in FAILURES]
)
def test_mistakes_are_told_in_one_sentence(relin_command, line, message, expected):
    code, _, err = relin_command(*shlex.split(line))
    assert message in err
    assert code == expected
    assert err.startswith("relin: ")
    assert err.count("\n") == 1
    assert err.rstrip().endswith(".")


def test_wrong_settings_are_told_before_anything_slow_is_imported():
    """The time they take is that of Python and the libraries of the command line itself."""
    lines = ["study frequency --data nosuch", "study frequency --set nosuch=1"]
    lines += ["train --model nosuch", "train --schedule nosuch", "train --data-dir nosuch", "train --rate 0"]
    lines += ["train --set model_options={widht=1}", "study frequency --data-dir nosuch", "train --check --seed -1"]
    code = f"""
import sys
from relin.cli import main
for line in {lines}:
    sys.argv = ["relin", *line.split()]
    try:
        main()
    except SystemExit as end:
        print(end.code, *(name for name in ("jax", "polars", "sklearn", "matplotlib", "scipy") if name in sys.modules))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.split("\n")[:-1] == [("1" if "--data-dir" in line else "2") for line in lines]
    assert found.stderr.count("relin: ") == len(lines)


def test_what_a_terminal_cannot_show_is_replaced(relin_command, monkeypatch):
    for arguments in (["study", "--settings"], ["data"], ["--help"], ["train", "--schedule", "∞"]):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2))
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", out)
            patched.setattr(sys, "stderr", err)
            code = relin_command(*arguments)[0]
            said = [(stream.flush(), stream.buffer.getvalue().decode("ascii"))[1] for stream in (out, err)]
        assert code == (2 if "train" in arguments else 0)
        assert "?" in "".join(said) or "--help" in arguments
        assert ("got '?'" in said[1]) == ("train" in arguments)


def test_help_shows_what_stands_in_brackets(relin_command):
    code, out, err = relin_command("study", "--help")
    assert (code, err) == (0, "")
    told = " ".join(out.replace("│", " ").split())
    assert "report [studies/NAME-DATA-MODEL]." in told
    assert "--set periods='[1, 64]'." in told


def test_names_of_folders_in_brackets_are_shown(relin_command, monkeypatch):
    monkeypatch.setattr("relin.cli._train._write", lambda *_: None)
    monkeypatch.setattr("relin.study._saved.save_run", lambda *_: None)
    code, out, _ = relin_command("train", "--steps", 2, "--out", "[red]run", *SMALL)
    assert code == 0
    assert "Parameters: [red]run/solution.safetensors" in out


def test_a_message_has_at_most_ten_names():
    assert listed("abcdefghij") == "a, b, c, d, e, f, g, h, i, j"
    assert listed("abcdefghijkl") == "a, b, c, d, e, f, g, h, i, j and 2 more"
    assert len(shortened({name: name * 100 for name in "abcdefghijkl"})) < 1000


def test_an_error_of_the_disk_names_the_file(monkeypatch, tmp_path):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(tmp_path / "a.csv", "a")
    assert caught.value.filename == str(tmp_path / "a.csv")
    assert not list(tmp_path.iterdir())


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

    monkeypatch.setattr(Runner, "train_kept", lambda *_: pl.DataFrame())
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
    for name in (
        "digits",
        "mnist1d",
        "mnist",
        "fashion-mnist",
        "cifar10",
        "cifar100",
        "FILE.npz",
        "huggingface:FOLDER",
    ):
        assert name in out
