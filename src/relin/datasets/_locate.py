"""Where a dataset's files are on this machine."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from relin._common.words import listed
from relin.datasets._errors import DatasetError
from relin.datasets._sources import Layout, Source


@dataclass(frozen=True)
class Found:
    """The complete files of one layout: the path of each official name, or the archive with all of them."""

    layout: Layout
    files: dict[str, Path]
    archive: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """The files on disk."""
        return [self.archive] if self.archive else list(self.files.values())

    @property
    def where(self) -> Path:
        """The archive, or the folder of the files."""
        return self.archive or next(iter(self.files.values())).parent


def cache_folder() -> Path:
    """`datasets` in the user's cache folder of relin, or in the folder that RELIN_CACHE names."""
    root = os.environ.get("RELIN_CACHE") or platformdirs.user_cache_dir("relin")
    return Path(root).expanduser() / "datasets"


def check_data_dir(data_dir: str | os.PathLike[str] | None) -> Path | None:
    """The folder as a path; refuses one that is not there, not a folder or not readable."""
    if data_dir is None:
        return None
    folder = Path(data_dir).expanduser()
    # os.path answers where Path's methods raise: below a folder that may not be entered.
    if not os.path.isdir(folder):
        fault = "is not a folder" if os.path.exists(folder) else "does not exist"
    elif not os.access(folder, os.R_OK | os.X_OK):
        fault = "cannot be read with your permissions"
    else:
        return folder
    raise DatasetError(f"data_dir {folder} {fault}; pass the folder that holds the dataset's files.")


def places(source: Source, data_dir: Path | None) -> list[Path]:
    """The folders searched, in order: data_dir, the cache, where the operating system's package has them."""
    given = [] if data_dir is None else [data_dir]
    return [*given, cache_folder() / source.name, *map(Path, source.system_folders)]


def locate(source: Source, data_dir: Path | None) -> Found | None:
    """The first complete set of files in `places`, or none."""
    for place in places(source, data_dir):
        found = _complete(source, place)
        if found is not None:
            return found
        # Going on to the cache would hide that the folder the user named lacks a file.
        if place == data_dir:
            _refuse_partial(source, place)
    return None


def verify(source: Source, found: Found) -> None:
    """Refuse files in the cache that have a published checksum and do not match it."""
    folder = cache_folder()
    for path in found.paths:
        expected = source.downloads.get(path.name) or source.md5.get(path.name)
        if expected is None or not path.is_relative_to(folder):
            continue
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        except OSError as error:
            raise DatasetError(f"{path} cannot be read ({error.strerror}); make it readable or delete it.") from error
        if digest != expected:
            raise DatasetError(
                f"{path} has the MD5 checksum {digest} where {expected} is published, so the cached file is "
                "damaged; delete it to have it downloaded again, or keep files that are meant to differ in "
                "a folder of their own and pass that as data_dir."
            )


def _folders(source: Source, place: Path) -> Iterator[tuple[Path, Layout]]:
    # Subfolders named after the dataset come before loose files: MNIST's and Fashion-MNIST's are named alike.
    for root in (place / source.name, place):
        for layout in source.layouts:
            for name in layout.folders:
                yield root / name, layout
        for layout in source.layouts:
            yield root, layout


def _complete(source: Source, place: Path) -> Found | None:
    for folder, layout in _folders(source, place):
        files = _present(folder, layout)
        if len(files) == len(layout.files):
            return Found(layout, files)
        archive = folder / layout.archive if layout.archive else None
        if archive is not None and os.path.isfile(archive):
            return Found(layout, {}, archive)
    return None


def _present(folder: Path, layout: Layout) -> dict[str, Path]:
    suffixes = ("", ".gz") if layout.reader == "idx" else ("",)
    files = {}
    for name in layout.files:
        paths = [folder / (name + suffix) for suffix in suffixes]
        path = next((path for path in paths if os.path.isfile(path)), None)
        if path is not None:
            files[name] = path
    return files


def _refuse_partial(source: Source, place: Path) -> None:
    for folder, layout in _folders(source, place):
        files = _present(folder, layout)
        if files:
            missing = listed(name for name in layout.files if name not in files)
            raise DatasetError(
                f"{folder} holds only a part of {source.name}: {missing} is missing beside "
                f"{next(iter(files.values())).name}; add what is missing, or pass another data_dir."
            )
