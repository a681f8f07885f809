"""Fetching a dataset's published files into the cache, once, with their checksums."""

import logging
from typing import Any, cast

from relin.datasets._errors import DatasetError
from relin.datasets._locate import cache_folder
from relin.datasets._sources import Source

# Seconds without an answer or a byte before a download is given up.
_TIMEOUT = 30.0


def download(source: Source, searched: str) -> None:
    """Download the files of `source` into the cache.

    **Raises:** `DatasetError`: no connection, a refusal by the server, or a file with another checksum than published;
    `searched` says in which folders the files were looked for before.
    """
    import pooch
    import requests

    folder = cache_folder() / source.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(
            f"{source.name} cannot be downloaded because the cache folder {folder} cannot be made "
            f"({error.strerror}); let RELIN_CACHE name a folder that can be written."
        ) from error
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        for name, md5 in source.downloads.items():
            url = source.url + name
            try:
                # Cast, because pooch's protocol names the arguments otherwise than its own downloaders do.
                pooch.retrieve(url, f"md5:{md5}", fname=name, path=folder, downloader=cast(Any, _transfer))
            except (OSError, requests.RequestException) as error:
                raise DatasetError(missing(source, searched, _reason(url, error))) from error
            except ValueError as error:
                raise DatasetError(
                    f"{url} was downloaded but does not have the published MD5 checksum {md5}, so it was "
                    f"discarded; try again, or put the official {name} into {folder}."
                ) from error
    finally:
        logger.setLevel(level)


def _transfer(url: str, output_file: str, pooch: object) -> None:
    """Download one address into a file; pooch's own downloader leaves the connection open when it breaks."""
    import requests

    # The checksum is of the stored bytes, so the server must not compress them once more.
    headers = {"Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=_TIMEOUT, headers=headers) as response:
        response.raise_for_status()
        with open(output_file, "wb") as file:
            for chunk in response.iter_content(1 << 16):
                file.write(chunk)


def missing(source: Source, searched: str, reason: str) -> str:
    """The sentence for files that are nowhere: which, where they were looked for, why, how to get them."""
    package = f", or install {source.system_package}" if source.system_package else ""
    return (
        f"{source.name} is missing: {source.wanted()} not found in {searched}, and {reason}; put the "
        f"official files into {cache_folder() / source.name}, or pass the folder that holds them as "
        f"data_dir{package}."
    )


def _reason(url: str, error: OSError) -> str:
    import requests

    # A failed connection would print the stack of its attempts.
    fault = type(error).__name__ if isinstance(error, requests.RequestException) else str(error)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        fault = f"{error.response.status_code} {error.response.reason}"
    return f"the download of {url} failed ({fault})"
