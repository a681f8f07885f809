"""The real command in its own process: killed, interrupted, twice at once."""

import shutil
import signal
import time

import jax
import polars as pl
import polars.testing
import pytest
from cli_sample import NUM_PACKS

from relin._common.files import write_atomically
from relin.cli._jax import prepare
from relin.study import StoreError, stored_study

pytestmark = pytest.mark.slow

COUNT_CACHE_HITS = """
import jax, sys
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None)
from relin.cli import main
main()
print("hits:", len(hits))
"""


def records_in(folder):
    return stored_study(folder)[2]


def packs_in(folder):
    return set((folder / "packs").glob("*.parquet")) if (folder / "packs").exists() else set()


def wait_for(condition, process, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_study_ends_with_its_table_verdict_and_report(finished):
    folder, out = finished
    assert len(packs_in(folder)) == NUM_PACKS
    assert "comparing schedules" in out
    assert "100%" in out
    assert "On digits, K* = " in out
    assert "Report: finished/report.html" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    page = (folder / "report.html").read_text()
    assert "relin study study.toml --out finished" in page.replace("-c", "relin")


def test_compiled_programs_are_kept_and_found_again(finished, commands):
    kept = {path.name.split("-")[0] for path in (commands.cache / "compiled").iterdir()}
    assert "jit__call" in kept


def test_who_told_jax_where_to_keep_programs_is_obeyed(monkeypatch, tmp_path):
    monkeypatch.setenv("RELIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    before = jax.config.jax_compilation_cache_dir
    prepare()
    assert jax.config.jax_compilation_cache_dir == before
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_a_killed_study_resumes_to_the_same_records(finished, commands):
    folder = commands.folder / "killed"
    arguments = ("study", "study.toml", "--out", folder.name)
    times = {}
    for progress in (1, 5):
        with commands.start(*arguments) as process:
            wait_for(lambda progress=progress: len(packs_in(folder)) >= progress, process)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        before = packs_in(folder)
        assert progress <= len(before) < NUM_PACKS
        times |= {path: path.stat().st_mtime_ns for path in before - set(times)}
        (folder / "packs" / f".{min(before).name}.abcd.part").write_bytes(b"half a file")
        with pytest.raises(StoreError, match="does not hold a whole study yet"):
            stored_study(folder)
    code, out, err = commands.run(*arguments)
    assert (code, err) == (0, "")
    assert "On digits" in out
    assert {path: path.stat().st_mtime_ns for path in times} == times  # not computed again
    polars.testing.assert_frame_equal(records_in(folder), records_in(finished[0]), check_exact=True)


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_an_interrupt_stops_promptly_and_says_how_to_resume(commands, number, expected):
    folder = commands.folder / f"interrupted-{expected}"
    # Long stretches between records: stopping must not wait for the next one.
    arguments = ("study", "study.toml", "--out", folder.name, "--steps", "3000000", "--set", "num_records=1")
    with commands.start(*arguments) as process:
        wait_for(lambda: len(list((folder / "locks").glob("select-*"))) >= 1, process)
        time.sleep(1)
        start = time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert time.monotonic() - start < 2
    assert process.returncode == expected
    assert err == "relin: Stopped; finished runs of a study are kept, and the same command resumes it.\n"


@pytest.mark.slow
def test_two_processes_share_a_study(finished, commands):
    folder = commands.folder / "shared"
    arguments = ("study", "study.toml", "--out", folder.name)
    code = COUNT_COMPUTED + COUNT_CACHE_HITS
    with commands.start(*arguments, code=code) as first, commands.start(*arguments, code=code) as second:
        both = (first, second)
        ends = [process.communicate(timeout=100) for process in both]
    assert [(process.returncode, err) for process, (_, err) in zip(both, ends, strict=True)] == [(0, ""), (0, "")]
    polars.testing.assert_frame_equal(records_in(folder), records_in(finished[0]), check_exact=True)
    computed = sum(int(line.split()[1]) for out, _ in ends for line in out.splitlines() if line.startswith("computed:"))
    assert computed == NUM_PACKS
    hits = [int(line.split()[1]) for out, _ in ends for line in out.splitlines() if line.startswith("hits:")]
    assert min(hits) >= 3  # init, segment and observe come from the first process of the tests


COUNT_COMPUTED = """
import atexit
from relin.study import Store
computed, write = [], Store.write
Store.write = lambda *arguments: (computed.append(1), write(*arguments))
atexit.register(lambda: print("computed:", len(computed)))
"""


def test_help_does_not_wait_for_jax(commands):
    code = (
        "import sys, atexit; atexit.register(lambda: print('jax' in sys.modules)); from relin.cli import main; main()"
    )
    for arguments in (["--help"], [], ["study", "--help"], ["train", "--help"]):
        status, out, err = commands.run(*arguments, code=code)
        assert (status, err) == (0, "")
        assert out.rstrip().endswith("False")
        assert "Usage: " in out


@pytest.mark.slow
def test_a_full_disk_costs_nothing_that_was_finished(finished, commands, tmp_path):
    """A limit on the size of files refuses writes as a full disk does, and needs no rights."""
    folder = tmp_path / "full"
    shutil.copytree(finished[0], folder)
    removed = sorted(packs_in(folder))[:2]
    for path in removed:
        path.unlink()
    code = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\nfrom relin.cli import main; main()"
    status, _, err = commands.run("study", "study.toml", "--out", folder, code=code)
    assert status == 1
    assert err.startswith("relin: The system refused to read or write")
    assert err.count("\n") == 1
    assert "the same command resumes" in err
    left = sorted(path.name for path in (folder / "packs").iterdir())
    assert left == sorted(
        path.name for path in packs_in(finished[0]) - {finished[0] / "packs" / p.name for p in removed}
    )
    status, _, err = commands.run("study", "study.toml", "--out", folder)
    assert (status, err) == (0, "")
    polars.testing.assert_frame_equal(records_in(folder), records_in(finished[0]), check_exact=True)


def written(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "locks"]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def test_a_finished_study_writes_nothing_and_imports_neither_jax_nor_matplotlib(finished, commands):
    before, modules = written(finished[0]), ("jax", "matplotlib")
    code = f"import sys, atexit; atexit.register(lambda: print([m for m in {modules} if m in sys.modules]))\n"
    status, out, err = commands.run(
        "study", "study.toml", "--out", "finished", code=code + "from relin.cli import main; main()", rough=False
    )
    assert (status, err) == (0, "")
    assert out.rstrip().endswith("[]")
    assert finished[1][finished[1].index("On digits") :].rstrip() in out
    assert written(finished[0]) == before


@pytest.mark.parametrize("change", ["--redraw", "records", "figure", "nothing"])
def test_a_report_is_written_where_something_changed(finished, relin_command, tmp_path, monkeypatch, change):
    folder, pages = tmp_path / "copy", []
    shutil.copytree(finished[0], folder)
    monkeypatch.setattr("relin.report._current.write_report", lambda *arguments: pages.append(arguments[3]))
    if change == "records":
        job = min(packs_in(folder))
        newer = pl.read_parquet(job).with_columns(device=pl.lit("abacus"))
        newer.write_parquet(job)
    elif change == "figure":
        next((folder / "figures").glob("*.png")).unlink()
    code, out, err = relin_command("report", folder, *(["--redraw"] if change == "--redraw" else []))
    assert (code, err) == (0, "")
    assert "Report: " in out
    assert len(pages) == (change != "nothing")
    if change == "records":
        assert "abacus (3 runs)" in pages[0]["device"]
        assert "cpu" in pages[0]["device"]


def test_a_folder_removed_while_the_report_is_written(finished, relin_command, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)

    def removing(*arguments):
        shutil.rmtree(folder)
        write_atomically(folder / "figures" / "a.png", b"")

    monkeypatch.setattr("relin.report._current.write_report", removing)
    code, _, err = relin_command("report", folder, "--redraw")
    assert code == 1
    assert (
        err == f"relin: {folder} was removed while the report was written; run the same command again to begin anew.\n"
    )
    assert not folder.exists()


def test_report_answers_again_from_the_folder_alone(finished, relin_command, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(finished[0], folder)
    (folder / "report.html").unlink()
    code, out, err = relin_command("report", folder)
    assert (code, err) == (0, "")
    verdict = finished[1][finished[1].index("On digits") :].split("on par:")[0]
    assert verdict in out
    assert (folder / "report.html").is_file()
    summary = pl.read_csv(folder / "table.csv")
    assert summary.height == 3
