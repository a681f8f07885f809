import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_sample import ENVIRONMENT, SPEC, sample_of_both, sample_study

from relin.report import write_report


class ParsedPage(HTMLParser):
    """The elements of a page with their attributes, the text by id, and the cells of its tables."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._stack: list[tuple[str, str | None]] = []
        self._text: dict[str, str] = {}
        self._cell = False
        self.feed(html)

    def text(self, identity: str) -> str:
        return self._text[identity]

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in ("meta", "link", "br", "use", "path"):
            self._stack.append((tag, attributes.get("id")))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
            self._cell = True

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self._cell = False
        while self._stack and tag not in ("use", "path") and self._stack.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][-1] += data
        for _, identity in self._stack:
            if identity is not None:
                self._text[identity] = self._text.get(identity, "") + data


@pytest.fixture
def parse():
    return ParsedPage


@pytest.fixture(scope="session")
def study():
    return sample_study()


@pytest.fixture(scope="session")
def report(study, tmp_path_factory) -> Path:
    result, records = study
    return write_report(result, records, SPEC, ENVIRONMENT, tmp_path_factory.mktemp("study") / "new" / "report")


@pytest.fixture(scope="session")
def both():
    """A study that compares with equal steps and with equal learning rate × steps."""
    return sample_of_both()


@pytest.fixture(scope="session")
def report_of_both(both, tmp_path_factory) -> Path:
    result, records = both
    return write_report(result, records, SPEC, ENVIRONMENT, tmp_path_factory.mktemp("both"))


@pytest.fixture
def browse(tmp_path):
    """Opens a page in Chromium without network and returns its document after loading."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((found for found in map(shutil.which, names) if found), None)
    assert browser is not None, f"Expected one of {', '.join(names)} on the path; install Chromium to test the page."

    def dump(page: Path) -> str:
        quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", *quiet]
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        offline = "--host-resolver-rules=MAP * ~NOTFOUND"
        done = subprocess.run(
            [*command, profile, offline, "--window-size=1400,1000", "--dump-dom", page.as_uri()],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    return dump
