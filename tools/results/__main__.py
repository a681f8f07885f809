"""Writes what docs/results and texts about it state, from the stored records, or says with --check what is not so."""

import argparse
import sys

from tools.results import optimisers
from tools.results.folders import files, is_up_to_date
from tools.results.pages import STRICT, read, texts, unmarked_numbers
from tools.results.quantities import RESULTS, ROOT, Quantities

from relin._common.files import write_atomically
from relin.report._figures import save_png


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.results", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--figures", action="store_true", help="draw all figures again too, which takes minutes")
    arguments = parser.parse_args()
    check, left = arguments.check, list[str]()
    for folder in Quantities().folders():
        for path, content in files(folder, figures=arguments.figures and not check):
            if not is_up_to_date(path, content):
                print(f"{path.relative_to(ROOT)}: not what the records make of it")
                if check:
                    left.append(str(path))
                else:
                    write_atomically(path, content)
    if arguments.figures and not check:
        save_png(optimisers.draw, RESULTS / "optimisers" / "accuracy.png")
    for path in texts():
        reading = read(path)
        print("".join(f"{problem}\n" for problem in reading.problems), end="")
        if check:
            left += reading.problems
        elif reading.problems:
            write_atomically(path, reading.restated.encode())
            left += read(path).problems
    left += [problem for name in STRICT for problem in unmarked_numbers(name)]
    if left:
        sys.exit("\n".join(["", "Not so:" if check else "What no command can write:", *left]))


main()
