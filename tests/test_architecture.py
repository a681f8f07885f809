"""Imports point down: the table of docs/architecture.md, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "relin"

# From bottom to top. A module may import its own room and rooms below it; rooms on one line are strangers.
FLOORS = [
    ("_common",),
    ("datasets",),
    ("_core",),
    ("_logger",),
    ("kernel",),
    ("_schedule", "_safeguard"),
    ("_solver",),
    ("_observer",),
    ("_loop",),
    ("adapters", "models", "preset", "equinox", "linen", "nnx", "torch"),
    ("_public",),
    ("study",),
    ("report",),
    ("studies",),
    ("cli",),
    ("__main__",),
]
HEIGHTS = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(ROOT.rglob("*.py"))
MAY_READ_PROGRAMS = "relin._core.programs"
"""The one module that may import `jax.extend.core`, with a fallback that works without it."""
SHOW_RESULTS = ("page", "figures", "table", "terminal", "accuracy", "sharpness", "data", "result", "verdict")
NEVER_IN_REPORT = {"jax", "optax", "equinox", "relin._loop"}


def name_of(path):
    parts = ("relin", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in MODULES}


def room_of(module):
    """The room of a module, `None` for the package's own face and for what is not ours."""
    parts = module.split(".")
    return parts[1] if parts[0] == "relin" and len(parts) > 1 else None


def imported(path, nodes=ast.walk):
    """The dotted names of everything a module imports, anywhere in it, or in those of its nodes."""
    package = ("relin", *path.relative_to(ROOT).parts[:-1])
    for node in nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join((*above, *filter(None, [node.module])))
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if inner in NAMES or source == "jax" else source


def test_every_room_has_a_floor():
    rooms = {room_of(name) for name in NAMES} - {None}
    assert rooms <= set(HEIGHTS), f"give {sorted(rooms - set(HEIGHTS))} a place among FLOORS"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path):
    own = room_of(name_of(path))
    for module in imported(path):
        room = "_public" if module == "relin" else room_of(module)
        if own is None or room is None or room == own:
            continue
        assert HEIGHTS[room] < HEIGHTS[own], f"{name_of(path)} imports {module}, which is not below it"


def test_only_public_jax():
    for path in MODULES:
        for module in imported(path):
            assert not module.startswith(("jax._src", "jaxlib")), f"{name_of(path)} imports {module}"
            if module.startswith("jax.extend"):
                assert name_of(path) == MAY_READ_PROGRAMS, f"{name_of(path)} imports {module}"


def test_reports_never_train():
    for path in (ROOT / "report").rglob("*.py"):
        for module in imported(path):
            root = module.split(".")[0]
            assert module not in NEVER_IN_REPORT, f"{name_of(path)} imports {module}"
            assert root not in NEVER_IN_REPORT, f"{name_of(path)} imports {module}"
            assert module != "relin", f"{name_of(path)} imports all of relin, the training loop with it"


def run_on_import(tree):
    """The nodes of a module that its import runs: not those of functions, nor what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            yield from run_on_import(node)


def test_no_module_waits_for_itself():
    edges = {name_of(path): NAMES & set(imported(path, run_on_import)) for path in MODULES}
    assert "relin.report._style" in edges["relin.report._labels"]
    while ends := [name for name, below in edges.items() if not below & edges.keys()]:
        for name in ends:
            del edges[name]
    assert not edges, f"in or above a circle of imports: {sorted(edges)}"


def test_studies_do_not_know_each_other():
    for path in (ROOT / "studies").rglob("*.py"):
        for module in imported(path):
            parts = module.split(".")
            if parts[:2] == ["relin", "studies"]:
                assert parts[2] == path.relative_to(ROOT).parts[1], f"{name_of(path)} imports {module}"


def test_what_studies_share_knows_none_of_them():
    """`FLOORS` forbids the import; this also finds what is imported by its name."""
    known = {ROOT / "study" / "_registry.py"}  # where the studies that come with relin are looked up
    for room in ("study", "report"):
        for path in set((ROOT / room).rglob("*.py")) - known:
            assert "relin.studies" not in path.read_text(), f"{name_of(path)} names relin.studies"


@pytest.mark.slow
def test_what_shows_results_loads_no_jax():
    """One new process for all studies: what they show on pages and terminals, and all that this imports."""
    shown = [p for p in MODULES if p.parent.parent == ROOT / "studies" and p.stem in SHOW_RESULTS]
    assert len({path.parent for path in shown}) > 5
    names = ["relin.report._public", *map(name_of, shown)]
    code = f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(names) <= set(loaded)
    assert not {name.split(".")[0] for name in loaded} & {"jax", "jaxlib", "optax", "equinox", "flax", "torch"}


def test_nobody_imports_the_command_line():
    for path in MODULES:
        if room_of(name_of(path)) not in ("cli", "__main__"):
            assert "cli" not in {room_of(module) for module in imported(path)}, name_of(path)


def test_the_reader_of_imports_sees_them():
    """The tests above could not fail if this found nothing."""
    seen = set(imported(ROOT / "_loop" / "train.py"))
    assert {"jax", "jax.numpy", "relin._loop.validate", "relin._core.problem"} <= seen
    assert "relin.models._mlp" in set(imported(ROOT / "models" / "_registry.py"))
    assert len(MODULES) > 40
