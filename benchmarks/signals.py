"""Sends signals at random moments to real commands: `python -m benchmarks.signals [--number 200] [--seed 0]`.

Each must end within two seconds with the code of its signal and one sentence; no finished run of a study may be lost or
computed again, no half written file left, and the study that was stopped again and again must end with the records of
one that was not. Exits with 1 otherwise.
"""

import argparse
import collections
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import polars.testing

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LIMIT = 2.0
TINY = ["--set", "model_options={width=8, depth=1}", "--set", "num_records=2"]
STUDY = ["study", "frequency", "--steps", "500", "--seeds", "2", *TINY, "--set", "select_seeds=1"]
STUDY += ["--set", "learning_rates=[0.1, 0.03]", "--set", "periods=[1, 'inf']"]
STUDY += ["--set", "sparse_periods=[]", "--set", "tolerances=[]"]
TRAIN = ["train", "--steps", "5000", "--log", "run.jsonl", *TINY, "--out", "run"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, and so by the commands
    with tempfile.TemporaryDirectory() as folder:
        faults = Trial(Path(folder), random.Random(options.seed)).run(options.number)
    sys.exit(bool(faults))


class Trial:
    """A folder in which commands are stopped, and what was found."""

    def __init__(self, folder: Path, chance: random.Random):
        self.folder, self.chance = folder, chance
        self.faults = list[str]()
        self.waits = list[float]()
        self.ends: collections.Counter[str] = collections.Counter()
        self.takes = dict[str, float]()

    def run(self, number: int) -> list[str]:
        self.takes = {"study": self.finish("whole"), "train": self.finish("run", TRAIN)}
        print(f"uninterrupted: study {self.takes['study']:.1f} s, train {self.takes['train']:.1f} s", flush=True)
        round_, sent = 0, 0
        while sent < number:
            kind = ("study", "train")[sent % 2]
            sent += self.stop(kind, self.folder / f"round-{round_}", SIGNALS[sent % 3])
            if kind == "study" and (self.folder / f"round-{round_}" / "report.html").exists():
                self.compare(f"round-{round_}")
                round_ += 1
            if sent % 20 == 0:
                print(f"{sent} sent, slowest {max(self.waits, default=0):.2f} s, {len(self.faults)} faults", flush=True)
        self.finish(f"round-{round_}")
        self.compare(f"round-{round_}")
        waits = sorted(self.waits)
        print(f"{number} signals; seconds to the end: median {waits[len(waits) // 2]:.2f}, slowest {waits[-1]:.2f}")
        ends = ", ".join(f"{count} {end}" for end, count in self.ends.items())
        print(f"{ends}; {round_ + 1} studies were stopped again and again")
        return self.faults

    def stop(self, kind: str, out: Path, number: signal.Signals) -> bool:
        """Whether the signal found the command running."""
        arguments = [*STUDY, "--out", str(out)] if kind == "study" else TRAIN
        moment, begun = self.chance.uniform(0, self.takes[kind]), time.monotonic()
        before = digests(out)
        with self.started(arguments) as process:
            try:
                process.wait(moment)
                self.takes[kind] = time.monotonic() - begun  # the machine, or what is left of the study, changed
                return False
            except subprocess.TimeoutExpired:
                process.send_signal(number)
            start = time.monotonic()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            waited = time.monotonic() - start
            out_text, err = process.communicate()
        after = digests(out)
        what = f"{kind}, {number.name} after {moment:.2f} s"
        code, said = process.returncode, err.startswith("relin: Stopped; ") and err.count("\n") == 1
        if code == 128 + number and said:
            self.ends["stopped with a sentence"] += 1
        elif moment < 0.5 and not out_text and (code == -number or "KeyboardInterrupt" in err):
            self.ends["stopped while Python itself started"] += 1
        elif code == -number and not err and ("Report: " in out_text or "Parameters: " in out_text):
            self.ends["stopped while Python itself ended"] += 1  # it takes its handlers away, and all was written
        elif code == 0:  # its last bytes were written
            self.ends["had just ended"] += 1
        else:
            self.fault(f"{what}: exit code {code}, said {err!r}")
        self.waits.append(waited)
        if waited > LIMIT:
            self.fault(f"{what}: ended after {waited:.2f} s")
        if any(after.get(name) != digest for name, digest in before.items()):
            self.fault(f"{what}: a finished job was lost or changed")
        if parts := [str(path) for path in self.folder.rglob("*.part")]:
            self.fault(f"{what}: left {parts}")
        return True

    def fault(self, what: str) -> None:
        print(what, flush=True)
        self.faults.append(what)

    def finish(self, name: str, command: list[str] = STUDY) -> float:
        start = time.monotonic()
        arguments = [*command, "--out", name] if command is STUDY else command
        with self.started(arguments) as process:
            _, err = process.communicate()
        if process.returncode or err:
            self.fault(f"{name}: exit code {process.returncode}, said {err!r}")
        return time.monotonic() - start

    def compare(self, name: str) -> None:
        found, expected = (pl.read_parquet(self.folder / part / "records.parquet") for part in (name, "whole"))
        try:
            polars.testing.assert_frame_equal(found, expected, check_exact=True)
        except AssertionError:
            self.fault(f"{name}: its records are not those of a study that was not stopped")

    def started(self, arguments: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "relin.cli", *arguments],
            cwd=self.folder,
            env={**os.environ, "RELIN_CACHE": str(self.folder / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def digests(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("packs/*.parquet")}


if __name__ == "__main__":
    main()
