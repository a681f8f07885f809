"""Trains the runs of docs/windows.md, stores their records and draws its figures."""

import argparse
import datetime
import json
import os
import platform
import time
from pathlib import Path

from tools.windows.figures import draw
from tools.windows.records import FOLDER, Records


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.windows", description=__doc__)
    parser.add_argument("--draw", action="store_true", help="train nothing, draw from the records stored")
    parser.add_argument("--networks", nargs="+", help="only these, of mlp, cnn, lenet5 and vit")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the records and figures")
    arguments = parser.parse_args()
    if not arguments.draw:
        train(arguments.folder, arguments.networks)
    draw(Records(arguments.folder), arguments.folder)


def train(folder: Path, networks: list[str] | None) -> None:
    """The records of each network in a file of its own."""
    import jax
    import polars as pl
    from tools.windows.experiments import NETWORKS, Plan, everything, subject

    import relin as il

    plan, data = Plan(), il.datasets.load("fashion-mnist")
    folder.mkdir(parents=True, exist_ok=True)
    for name in networks or NETWORKS:
        start = time.process_time()
        rows = pl.concat(list(everything(subject(NETWORKS[name], data, plan), plan)))
        rows.write_parquet(folder / f"{name}.parquet", compression="zstd", compression_level=19)
        about = {
            "command": f"python -m tools.windows --networks {name}",
            "device": f"CPU {platform.machine()}, {os.cpu_count()} cores",
            "jax": jax.__version__,
            "date": str(datetime.datetime.now(datetime.UTC).date()),
        }
        (folder / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")
        seconds = time.process_time() - start
        print(f"{name}: {rows.height} rows in {seconds:.0f} s of the processor", flush=True)


if __name__ == "__main__":
    main()
