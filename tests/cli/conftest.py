import contextlib
import os
import signal
import subprocess
import sys

import pytest
from cli_sample import SPEC

import relin.cli._ntk
import relin.cli._study
import relin.cli._train
from relin.cli._signals import ENDING

ROUGH_FIGURES = """
import relin.report._figures, relin.report._style
relin.report._figures.PNG_DPI, relin.report._style.PDF_FONT_TYPE = 30, 3
"""


class Commands:
    """Starts the real command in its own process, with a cache of compiled programs of its own."""

    def __init__(self, folder):
        self.folder, self.cache = folder, folder / "cache"
        (folder / "study.toml").write_text(SPEC)

    @contextlib.contextmanager
    def start(self, *arguments, code="from relin.cli import main; main()", rough=True):
        """The running process, which does not outlive the `with` block."""
        # A test run in the background ignores Ctrl-C, and would hand that on.
        if rough and arguments[:1] == ("study",) and "--help" not in arguments:
            code = ROUGH_FIGURES + code
        code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"
        environment = os.environ | {"RELIN_CACHE": str(self.cache), "COLUMNS": "80", "JAX_PLATFORMS": "cpu"}
        for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_DISABLE_MOST_OPTIMIZATIONS"):  # it keeps what takes a while
            environment.pop(name, None)
        with subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, *arguments, **options):
        with self.start(*arguments, **options) as process:
            out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory.mktemp("commands"))


@pytest.fixture(scope="session")
def finished(commands):
    """The folder of a study that ran without interruption, and what the command said."""
    code, out, err = commands.run("study", "study.toml", "--out", "finished")
    assert (code, err) == (0, "")
    return commands.folder / "finished", out


@pytest.fixture
def relin_command(monkeypatch, capsys, tmp_path):
    """Runs a command in this process: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("RELIN_CACHE", str(tmp_path / "cache"))
    for module in ("relin.cli._study", "relin.cli._train", "relin.cli._ntk"):
        monkeypatch.setattr(f"{module}.prepare", lambda: None)  # JAX's settings are those of all tests
    before = {number: signal.getsignal(number) for number in ENDING}

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["relin", *map(str, arguments)])
        code = 0
        try:
            relin.cli.main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    yield command
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)
