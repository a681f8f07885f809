"""Text of any folder, as characters or bytes, with the next one at every position as the target."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from relin.datasets._dataset import Dataset, Examples
from relin.datasets._errors import DatasetError

Level = Literal["char", "byte"]
_HELD_OUT = 10
"""A tenth of the text validates, another tests."""


def text(folder: str | os.PathLike[str], *, pattern: str = "**/*", length: int = 64, level: Level = "char") -> Dataset:
    """The text of a folder's files, cut into windows whose targets are the next tokens.

    The files are joined in the order of their paths. The first 8 tenths of the text train, the next validates, the last
    tests; within each part windows do not overlap.

    **Arguments:**

    - `folder`: of text files in UTF-8; others, and hidden ones, are left out and counted in `split`.
    - `pattern`: of the files below it, such as `"**/*.py"`.
    - `length`: tokens of a window.
    - `level`: `"char"`, a token for each character of the training text and one for all others, or `"byte"`, 256
      of them.

    **Returns:** a `Dataset` whose x and y are int32 of shape (examples, length), y one token ahead of x; `num_classes`
    is the size of the vocabulary, and `vocabulary` spells it.

    **Raises:** `DatasetError` for a folder without text, or too little of it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder; pass one that holds text files.")
    if level not in ("char", "byte"):
        raise DatasetError(f'`level` must be "char" or "byte", got {level!r}; characters are usual.')
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise DatasetError(f"`length` must be a whole number of at least 1, got {length!r}; 64 is usual.")
    joined, used, skipped = _read(root, pattern)
    tokens = np.frombuffer(joined.encode(), np.uint8) if level == "byte" else _code_points(joined)
    borders = [len(tokens) * part // _HELD_OUT for part in (_HELD_OUT - 2, _HELD_OUT - 1)]
    parts = np.split(tokens, borders)
    if min(map(len, parts)) <= length:
        raise DatasetError(
            f"The text below {root} has {len(tokens)} tokens, and a tenth of them must be more than one window of "
            f"{length}; use more text or shorter windows."
        )
    alphabet = np.arange(256) if level == "byte" else np.unique(parts[0])
    known = all(np.isin(part, alphabet).all() for part in parts)
    train, validation, test = (_windows(_numbered(part, alphabet), length) for part in parts)
    left_out = f" ({skipped} files that are no UTF-8 text were left out)" if skipped else ""
    return Dataset(
        name=f"text:{folder}",
        train=train,
        validation=validation,
        test=test,
        num_classes=len(alphabet) + (not known),
        normalisation=f"none: tokens are {'bytes' if level == 'byte' else 'characters'}",
        split=f"Of {used} files joined by path{left_out} the first 8 tenths train, the next validates, the last "
        f"tests, in windows of {length}.",
        vocabulary=None
        if level == "byte"
        else "".join(map(chr, alphabet)) + ("\N{REPLACEMENT CHARACTER}" * (not known)),
    )


def _read(root: Path, pattern: str) -> tuple[str, int, int]:
    """The text, from how many files, and how many were left out."""
    texts, skipped = [], 0
    for path in files_of_text(root, pattern):
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            skipped += 1
        except OSError as error:
            raise DatasetError(f"{path} cannot be read ({error.strerror}); make it readable or move it.") from None
    if not texts:
        raise DatasetError(f"{root} holds no text files that match {pattern!r}; pass another folder or pattern.")
    return "\n".join(texts), len(texts), skipped


def files_of_text(root: Path, pattern: str = "**/*") -> Iterator[Path]:
    """The files of a folder that are read, in the order of their paths."""
    for path in sorted(root.glob(pattern)):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts):
            yield path


def _code_points(joined: str) -> np.ndarray:
    return np.frombuffer(joined.encode("utf-32-le"), np.uint32)


def _numbered(tokens: np.ndarray, alphabet: np.ndarray) -> np.ndarray:
    """Positions in the alphabet; its length for what is not in it."""
    places = np.searchsorted(alphabet, tokens).clip(max=len(alphabet) - 1)
    return np.where(alphabet[places] == tokens, places, len(alphabet)).astype(np.int32)


def _windows(tokens: np.ndarray, length: int) -> Examples:
    count = (len(tokens) - 1) // length
    return Examples(*(tokens[shift : shift + count * length].reshape(count, length) for shift in (0, 1)))
