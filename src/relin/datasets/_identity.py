"""What tells one's own data from others of the same name: a digest of their content."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from relin._common.files import open_file
from relin.datasets._dataset import Dataset
from relin.datasets._errors import DatasetError
from relin.datasets._huggingface import stored_files
from relin.datasets._locate import check_data_dir
from relin.datasets._names import own
from relin.datasets._nested import leaves
from relin.datasets._registry import check_name
from relin.datasets._text import files_of_text


def identity(data: str | Dataset, data_dir: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """What identifies data of one's own: settings that hold it tell a changed file.

    **Arguments:**

    - `data`: a name as `load` takes it, or a data set in memory.
    - `data_dir`: as for `load`.

    **Returns:** `{}` for the named sets, whose files are published; else `{"sha256": digest, "files": number}`. The
    digest of one file is that of its bytes, as `sha256sum` prints it. That of several files is the digest of the lines
    that `sha256sum` prints of them: by their paths in a folder, sorted; of a pair of `.npy` files by their names, x
    first. A data set in memory has the digest of its arrays, with their types and shapes, and no files.

    **Raises:** `DatasetError` for an unknown name, or files that cannot be read.
    """
    if isinstance(data, Dataset):
        return {"sha256": _of_arrays(data), "files": 0}
    check_name(data)
    check_data_dir(data_dir)
    found = own(data)
    if found is None:
        return {}
    root = Path(found.paths[0]).expanduser()
    if found.kind in ("text", "bytes"):
        files = [(path.relative_to(root).as_posix(), path) for path in files_of_text(root)]
    elif found.kind == "huggingface":
        files = [(path.relative_to(root).as_posix(), path) for path in sorted(stored_files(root))]
    else:
        files = [(Path(path).name, Path(path).expanduser()) for path in found.paths]
    digests = [(_of_file(path), name) for name, path in files]
    if len(digests) == 1:
        return {"sha256": digests[0][0], "files": 1}
    lines = "".join(f"{digest}  {name}\n" for digest, name in digests)
    return {"sha256": hashlib.sha256(lines.encode()).hexdigest(), "files": len(digests)}


def _of_file(path: Path) -> str:
    try:
        with open_file(path) as file:
            digest = hashlib.sha256()
            while piece := file.read(1 << 20):
                digest.update(piece)
            return digest.hexdigest()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); name a file that is there.") from None


def _of_arrays(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for part in ("train", "validation", "test"):
        for role, tree in zip("xy", getattr(dataset, part), strict=True):
            for name, array in leaves(tree, f"{part}.{role}"):
                digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
