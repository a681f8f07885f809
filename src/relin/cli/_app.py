"""`relin`: the commands and their options."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from relin.cli._failure import UsageError, run

app = typer.Typer(
    name="relin",
    help="Iterative linearised training: control and measure how often a network updates its features.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Redraw = Annotated[
    bool, typer.Option("--redraw", help="Write the report even if records, settings and relin are the same.")
]


def folder_named(name: str) -> Path:
    """The folder of an option; no name at all would be the current one."""
    if not name.strip():
        raise typer.BadParameter("name a folder, or . for the current one")
    return Path(name)


Optimiser = Annotated[
    str | None,
    typer.Option(
        help="Optimiser: sgd, momentum, adam, adamw, lion or muon \\[momentum: SGD with momentum].", show_default=False
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        parser=folder_named, metavar="<path>", help="Folder in which the data set's files are looked for first."
    ),
]

OwnStudy = Annotated[
    Path | None,
    typer.Option(
        "--study",
        parser=folder_named,
        metavar="<path>",
        help="Python file or folder of a study of your own, whose settings these are; it is run.",
    ),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"relin {version('relin')}")
        raise typer.Exit


@app.callback()
def common(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print relin's version, and stop.")
    ] = False,
) -> None:
    pass  # what comes before the command's name; the help text is that of `app`


NETWORKS = "Network: mlp, cnn, lenet5, vgg11, resnet18, wide-resnet, vit or gpt; or FILE.py:NAME, which builds one."


@app.command()
def study(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A study (frequency, essential, layers, timing, …), a .toml file, or the folder of one of your own.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Data set; `relin data` lists them; or FILE.py:NAME.")] = None,
    model: Annotated[str | None, typer.Option("--model", "--network", help=NETWORKS)] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=folder_named, metavar="<path>", help="Folder for records and report \\[studies/NAME-DATA-MODEL]."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of a run.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Paired seeds.")] = None,
    optimiser: Optimiser = None,
    measure: Annotated[
        str | None,
        typer.Option(
            help="What runs are judged by \\[accuracy], in most studies; FILE.py:NAME, a study.Measure.",
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Largest acceptable loss, in percentage points or the unit of --measure.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting, as in the file: --set periods='[1, 64]'."),
    ] = None,
    data_dir: DataDir = None,
    settings: Annotated[
        bool, typer.Option("--settings", help="Print every setting with its value and meaning, and stop.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Which of N processes that share the folder this one is \\[the task of SLURM's job array].",
            show_default=False,
        ),
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            metavar="WHO",
            help="Who computes: threads\\[:N], processes\\[:N] or ray\\[:ADDRESS] \\[threads, one a core].",
            show_default=False,
        ),
    ] = None,
    runs_from: Annotated[
        Path | None,
        typer.Option(
            "--runs-from",
            parser=folder_named,
            metavar="<path>",
            help="Folder of an earlier study, whose runs are taken where this one has the same: one with fewer rates, "
            "seeds or schedules.",
            show_default=False,
        ),
    ] = None,
    redraw: Redraw = False,
    own: OwnStudy = None,
) -> None:
    """Train a grid of runs and answer a question; the same command again resumes."""
    from relin.cli import _study

    if name == "" or (name is None and not settings):
        raise UsageError("Name a study, such as `relin study frequency`, or a file ending in .toml.")
    named = {
        "model": model,
        "steps": steps,
        "seeds": seeds,
        "optimiser": optimiser,
        "measure": measure,
        "margin": margin,
    }
    given = {key: value for key, value in named.items() if value is not None}
    _study.study(
        name or "frequency",
        data,
        {**given, **_study.read_settings(setting or [])},
        out,
        data_dir,
        settings,
        redraw,
        own,
        shard,
        executor,
        runs_from,
    )


@app.command()
def report(
    folder: Annotated[
        Path | None, typer.Argument(parser=folder_named, help="The folder of a study.", show_default=False)
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(
            parser=folder_named, metavar="<path>", help="In its place: runs made elsewhere, a .parquet or .csv file."
        ),
    ] = None,
    question: Annotated[
        str | None, typer.Option(help="Of these: which study they answer, such as frequency.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=folder_named, metavar="<path>", help="Of these: folder for the report."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Of these: any setting, such as margin=0.5 or num_classes=10."
        ),
    ] = None,
    redraw: Redraw = False,
    own: OwnStudy = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="n|K|T/K",
            help="Axis of figures of feature updates: their number, n, the steps of a window, K, or windows, T/K.",
        ),
    ] = None,
) -> None:
    """Answer a study's question, and write its report, from stored records or from runs made elsewhere."""
    from relin.cli import _study

    of_runs = {"--question": question, "--out": out, "--set": setting}
    if folder is not None:
        if given := [name for name, value in {"--records": records, **of_runs}.items() if value is not None]:
            raise UsageError(f"{given[0]} belongs to runs made elsewhere; leave it out, or the folder {folder}.")
        _study.report(folder, redraw, own, against)
    elif records is None or question is None:
        raise UsageError(
            "Name the folder of a study, or runs made elsewhere with --records FILE --question NAME, such as frequency."
        )
    else:
        _study.report_records(records, question, out, _study.read_settings(setting or []), own, against)


@app.command()
def gallery(
    folder: Annotated[
        Path, typer.Argument(parser=folder_named, help="A folder whose folders, at any depth, are studies.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            parser=folder_named,
            metavar="FILE.html",
            help="The page \\[gallery.html in the folder].",
            show_default=False,
        ),
    ] = None,
    own: Annotated[
        list[Path] | None,
        typer.Option(
            "--study",
            parser=folder_named,
            metavar="<path>",
            help="Python file or folder of a study of your own, of which there are folders; it is run. Any number.",
        ),
    ] = None,
) -> None:
    """Write one page over many studies: question, specimen, verdict, figure, link."""
    from relin.cli import _gallery

    _gallery.gallery(folder, out, own or [])


@app.command()
def train(
    data: Annotated[str, typer.Option(help="Data set; `relin data` lists them; or FILE.py:NAME.")] = "digits",
    model: Annotated[str, typer.Option("--model", "--network", help=NETWORKS)] = "mlp",
    schedule: Annotated[
        str, typer.Option(help="every-K, never, when-error-TOLERANCE …, with modifiers: every-64+clip-1.")
    ] = "every-64",
    optimiser: Optimiser = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Learning rate \\[one usual for the optimiser, 0.03 for momentum].", show_default=False),
    ] = None,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 1000,
    batch_size: Annotated[int, typer.Option(help="Examples a step.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the initial network and the batches.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=folder_named, metavar="<path>", help="Folder for the records, the parameters and a figure."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of a study, such as momentum=0."),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHERE",
            help="Where records also go as they are made: FILE.jsonl, tensorboard:FOLDER, mlflow:URI or wandb:FOLDER.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Train nothing: say what a step takes, and up to which rate it is stable.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Train one network and show what was measured on the way."""
    from relin.cli import _study, _train

    named = {"data": data, "model": model, "steps": steps, "batch_size": batch_size}
    named |= {} if optimiser is None else {"optimiser": optimiser}
    settings = {**named, **_study.read_settings(setting or [])}
    if check:
        _train.check(settings, seed, data_dir)
    else:
        _train.train(settings, schedule, rate, seed, out, data_dir, log or [])


@app.command()
def ntk(
    folder: Annotated[
        Path, typer.Argument(parser=folder_named, help="The folder of a run, as given to `relin train --out`.")
    ],
    probe: Annotated[int, typer.Option(help="Validation examples on which the kernel is computed.")] = 128,
    outputs: Annotated[
        str, typer.Option(help="Which kernel of the network's outputs: mean, full or diagonal.")
    ] = "mean",
    at: Annotated[
        str, typer.Option(help="The kernel at the end: of the linearised network (anchor) or of the network (end).")
    ] = "anchor",
    per_layer: Annotated[bool, typer.Option("--per-layer", help="Also the part of every parameter tensor.")] = False,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also the alignment with every class.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=folder_named,
            metavar="FILE.npy",
            help="In place of all this: only the kernel at the end, made in a file that may be larger than memory; the "
            "same command again resumes.",
        ),
    ] = None,
    examples: Annotated[
        str | None,
        typer.Option(help="Of such a file: training, validation or test \\[validation].", show_default=False),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Compute the neural tangent kernel of a saved run at its beginning and its end, and measure it."""
    from relin.cli import _ntk

    if out is None:
        if examples is not None:
            raise UsageError("--examples belongs to a kernel in a file; name one with --out kernel.npy.")
        _ntk.ntk(folder, probe, outputs, at, per_layer, per_class, data_dir)
    elif per_layer or per_class:
        raise UsageError("A kernel in a file is not measured; leave out --per-layer and --per-class, or --out.")
    else:
        _ntk.ntk_in_file(folder, out, probe, examples or "validation", outputs, at, data_dir)


@app.command("data")
def list_data(data_dir: DataDir = None) -> None:
    """List the data sets: what is here, what is missing, and how to get it."""
    from relin.cli import _data

    _data.list_data(data_dir)


def main() -> None:
    """The entry point: exit code 0, 1 after a failure, 2 after a wrong use."""
    run(lambda: app(sys.argv[1:] or ["--help"], standalone_mode=False))
