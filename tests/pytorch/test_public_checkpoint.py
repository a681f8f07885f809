"""Fine-tuning a model directory: the example runs, and an adapter's file is what was trained."""

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "public_checkpoint.py"
FEW = ["--seeds", "1", "--steps", "40", "--examples", "200", "--rates", "0.003"]


@pytest.mark.fashion_mnist
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Hugging Face's packages
def test_public_checkpoint(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [EXAMPLE.name, *FEW])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    found = re.findall(r"^\| (.+) \| (.+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \|", capsys.readouterr().out, re.MULTILINE)
    rows = {(part, period): (float(own), float(linear), int(n)) for part, period, own, linear, n in found}
    assert len(rows) == 7
    for part in ("all", "LoRA and head"):
        updates = [rows[part, period][2] for period in ("1", "32", "∞")]
        assert updates == [39, 1, 0]
        own, linear, _ = rows[part, "1"]
        assert own == pytest.approx(linear, abs=1)  # one step after the last anchor; through a file with LoRA
    assert rows["all", "∞"][1] != rows["head", "1"][1]  # the linearised network has features that depend on δ
    assert min(own for own, _, _ in rows.values()) > 30  # of five classes
