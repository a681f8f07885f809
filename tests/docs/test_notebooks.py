"""The notebooks of the documentation: they run, and show what their text says."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from tools.notebooks import NOTEBOOKS, executed, html_of, page_of

NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.py"))
SHOWN = {
    "verdict": [r"On digits, K\* = \d+|On digits, .*feature", "<img", "<summary>The numbers</summary>"],
    "kernel": [r"largest eigenvalues", "<img", "K = ∞"],
    "dial": [r"linearisation_error", "vegaEmbed"],
}


def test_every_notebook_is_looked_at():
    assert set(NAMES) == set(SHOWN)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_shows(name):
    notebook = executed(NOTEBOOKS / f"{name}.py")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert {output.output_type for output in outputs} == {"execute_result"}, "no warnings, nothing printed"
    page = "".join(map(html_of, outputs))
    for wanted in SHOWN[name]:
        assert re.search(wanted, page), wanted
    assert not re.search(r'<(?:script|link)[^>]+(?:src|href)="(?:https?:)?//', page), "it works without a network"
    if name == "kernel":
        found = dict(re.findall(r"'([^']+)': ([\d.]+)", outputs[-1].data["text/plain"]))
        assert found["K = ∞"] == found["at the beginning"], "lazy training keeps the kernel"
        assert float(found["K = 1"]) > float(found["K = ∞"]), "features are learned towards the targets"
    text = page_of(name, notebook)
    assert text.startswith("# ")
    assert text.count('<div class="notebook-output"') == len(outputs)
