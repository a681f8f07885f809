"""Notebooks as pages of the site: `docs/notebooks/*.py` are run, and shown with what they gave. A hook of mkdocs.

A notebook is text, in jupytext's percent format. Its page holds its own figures.
"""

import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any

import jupytext
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"
SECONDS = 300
"""A cell may take."""

_OUTPUTS = dict[str, str]()
"""HTML of outputs by their names: it goes into a page after Markdown was read, which would change it."""


def executed(path: Path) -> NotebookNode:
    """The notebook with the outputs of its cells, run in a folder of its own.

    **Raises:** `nbclient.exceptions.CellExecutionError` where a cell fails.
    """
    notebook = jupytext.read(path)
    with tempfile.TemporaryDirectory() as folder:
        options = {"timeout": SECONDS, "startup_timeout": SECONDS, "kernel_name": "python3"}
        quiet = ["--log-level=ERROR"]  # a kernel warns that it talks without encryption, to this machine alone
        client = NotebookClient(notebook, extra_arguments=quiet, resources={"metadata": {"path": folder}}, **options)
        return client.execute()


def page_of(name: str, notebook: NotebookNode) -> str:
    """The notebook as Markdown; outputs that are HTML are kept for `on_page_content`."""
    parts = list[str]()
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.cell_type == "code":
            parts.append(f"```python\n{cell.source}\n```")
            for index, output in enumerate(cell.outputs):
                place = f"{name}-{number}-{index}"
                _OUTPUTS[place] = html_of(output)
                parts.append(f'<div class="notebook-output" id="{place}"></div>')
    first, *others = parts
    parts = [first, f"[This notebook as a file]({name}.py), for jupytext, JupyterLab or VS Code.", *others]
    return "\n\n".join(parts) + "\n"


def html_of(output: Any) -> str:
    """One output of a cell: its HTML, its image, or its text."""
    if output.output_type == "stream":
        return f"<pre>{escape(output.text)}</pre>"
    shown = output.data
    if "text/html" in shown:
        return shown["text/html"]
    if "image/png" in shown:
        return f'<img alt="The figure that the code above draws" src="data:image/png;base64,{shown["image/png"]}">'
    return f"<pre>{escape(shown['text/plain'])}</pre>"


def on_files(files: Files, config: Any) -> Files:
    """Called by mkdocs."""
    paths = sorted(NOTEBOOKS.glob("*.py"))
    with ThreadPoolExecutor(2) as threads:
        notebooks = threads.map(executed, paths)
        for path, notebook in zip(paths, notebooks, strict=True):
            content = page_of(path.stem, notebook)
            files.append(File.generated(config, f"notebooks/{path.stem}.md", content=content))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs with each page, after Markdown was read."""
    return re.sub(
        r'(<div class="notebook-output" id="([^"]+)">)(?=</div>)', lambda found: found[1] + _OUTPUTS[found[2]], html
    )
