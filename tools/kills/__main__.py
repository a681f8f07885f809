"""Kills studies, runs and kernels at random moments, goes on with them, and counts what was lost or came out wrong."""

import argparse
import sys
import tempfile
from pathlib import Path

from tools.kills.killing import Tally, killed
from tools.kills.subjects import SUBJECTS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="of all subjects together")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    print("| what | kills | of these, in the middle | runs to the end | lost | other bits |\n|---|---|---|---|---|---|")
    tallies = list[Tally]()
    for place, subject in enumerate(SUBJECTS):
        share = (arguments.kills + place) // len(SUBJECTS)
        with tempfile.TemporaryDirectory() as folder:
            tallies.append(killed(subject, Path(folder), share, arguments.seed + place))
        print(f"| {subject.name} | {' | '.join(map(str, tallies[-1]))} |", flush=True)
    if any(tally.lost or tally.different for tally in tallies):
        sys.exit("Something was lost, or came out otherwise.")


main()
