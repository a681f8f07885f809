"""One page over many folders of studies."""

import base64
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from relin.report import write_gallery
from relin.study import SpecError, stored_study

RESULTS = Path(__file__).parents[2] / "docs" / "results"
ANSWERED = "essential-cifar-cnn"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An answered study, one that has only begun, one whose settings are damaged, one without records, and no study."""
    studies = tmp_path_factory.mktemp("my studies")
    for name in (ANSWERED, "deep/half", "emptied"):
        (studies / name).mkdir(parents=True)
        shutil.copy(RESULTS / ANSWERED / "spec.json", studies / name)
    shutil.copy(RESULTS / ANSWERED / "records.parquet", studies / ANSWERED)
    for name in ("deep/half", "emptied"):
        (studies / name / "packing.json").write_text('{"lanes": 1}')
    (studies / "deep" / "half" / "packs").mkdir()
    (studies / "emptied" / "records.parquet").write_bytes(b"no Parquet")
    for name in ("broken", "notes"):
        (studies / name).mkdir()
    (studies / "broken" / "spec.json").write_text("{")
    return studies


@pytest.fixture(scope="module")
def page(folder):
    return write_gallery(folder)


def cards(page):
    found = re.findall(r"<article.*?</article>", page.read_text(encoding="utf-8"), re.DOTALL)
    return {re.search('class="place">(.*?)<', card)[1]: card for card in found}


def test_an_answer_is_shown_with_verdict_figure_and_link(page, folder):
    card = cards(page)[ANSWERED]
    verdict = stored_study(folder / ANSWERED)[1].verdict
    assert verdict.split(";")[0] in card
    assert 'href="essential-cifar-cnn"' in card
    assert "cnn on cifar10" in card
    pictures = re.findall(r'(?:src|srcset)="data:image/png;base64,([^"]+)"', card)
    dark, light = (Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB") for content in pictures)
    assert light.getpixel((0, 0)) == (255, 255, 255)
    assert dark.getpixel((0, 0)) == (0x17, 0x1B, 0x21)
    assert "Is feature learning essential, and when?" in page.read_text(encoding="utf-8")


def test_what_has_no_answer_is_shown_as_such(page):
    found = cards(page)
    assert set(found) == {ANSWERED, "half", "emptied", "broken"}
    assert "Not finished" in found["half"]
    assert re.search(r"0 of \d+ jobs of runs are stored; run the same study command again", found["half"])
    for name in ("emptied", "broken"):
        assert "Not readable" in found[name]
    assert "4 studies: 1 answered, 1 not finished, 2 not readable" in page.read_text(encoding="utf-8")


def test_links_lead_from_where_the_page_is(folder, tmp_path):
    (folder / "deep" / "half" / "report.html").write_text("")
    out = write_gallery(folder / "deep", tmp_path / "pages" / "all.html")
    (link,) = re.findall('<h3.*?href="(.*?)"', out.read_text(encoding="utf-8"))
    assert (out.parent / unquote(link)).resolve() == (folder / "deep" / "half" / "report.html").resolve()
    assert " " not in link


def test_nothing_comes_from_elsewhere(page, browse):
    assert not re.findall(r'(?:src|href|srcset)="(?:https?:)?//', page.read_text(encoding="utf-8"))
    assert browse(page).count("<article") == 4


def test_folders_without_a_study_are_refused(tmp_path):
    with pytest.raises(SpecError, match=r"holds no study .no spec\.json in it or below it.; name"):
        write_gallery(tmp_path)
    with pytest.raises(SpecError, match="is no folder; name one"):
        write_gallery(tmp_path / "absent")


@pytest.mark.slow
def test_the_command_needs_no_jax(folder, tmp_path):
    code = (
        "import sys\nsys.modules['jax'] = None\nfrom relin.cli import main\n"
        f"sys.argv = ['relin', 'gallery', {str(folder / 'deep')!r}, '--out', {str(tmp_path / 'page.html')!r}]\nmain()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "page.html").is_file()
    code = "import sys\nfrom relin.cli import main\nsys.argv = ['relin', 'gallery', 'absent']\nmain()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "relin: absent is no folder; name one whose folders are studies.\n"
