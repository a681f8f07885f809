"""Downloads, against a real HTTP server on this machine."""

import dataclasses
import gzip
import hashlib
import http.server
import threading
from types import MappingProxyType

import pytest
from dataset_writers import IDX_TEST, IDX_TRAIN, idx_images, idx_labels, python2_pickle, random_images, table, tar_gz

from relin.datasets import DatasetError, _sources, load


class _Server:
    """Serves `files` and remembers what was asked for."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.encodings: set[str] = set()
        self.cut = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.rpartition("/")[2]
                outer.asked.append(name)
                outer.encodings.add(self.headers["Accept-Encoding"])
                content = outer.files.get(name)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) - outer.cut])

            def log_message(self, *_):
                pass

        # Handlers are waited for when the server closes, so that none outlives its test.
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = False
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/data/"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = _Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def publish(monkeypatch, server, name, files):
    """Serve the files, with their true checksums as the published ones."""
    server.files.update(files)
    downloads = {file: hashlib.md5(content).hexdigest() for file, content in files.items()}
    source = dataclasses.replace(_sources.SOURCES[name], url=server.url, downloads=MappingProxyType(downloads))
    monkeypatch.setitem(_sources.SOURCES, name, source)


@pytest.fixture
def mnist(monkeypatch, server):
    train, test = random_images(12, (28, 28, 1), 10, 0), random_images(5, (28, 28, 1), 10, 1)
    files = {}
    for names, (images, labels) in ((IDX_TRAIN, train), (IDX_TEST, test)):
        for name, content in zip(names, (idx_images(images), idx_labels(labels)), strict=True):
            files[f"{name}.gz"] = gzip.compress(content)
    publish(monkeypatch, server, "mnist", files)
    return files


def test_downloaded_once_and_in_silence(mnist, server, own_cache, capfd, caplog):
    first = load("mnist")
    assert sorted(server.asked) == sorted(mnist)
    # The published checksums are of the files as stored, not as a server might compress them on the way.
    assert server.encodings == {"identity"}
    assert {path.name: path.read_bytes() for path in (own_cache / "mnist").iterdir()} == mnist
    second = load("mnist")
    assert len(server.asked) == 4
    assert (first.train.x == second.train.x).all()
    assert load("mnist", download=False).train.x.shape == (10, 28, 28, 1)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_an_interrupted_download_is_completed(mnist, server, own_cache):
    (own_cache / "mnist").mkdir(parents=True)
    for name in list(mnist)[:3]:
        (own_cache / "mnist" / name).write_bytes(mnist[name])
    load("mnist")
    assert server.asked == list(mnist)[3:]


def test_archive(monkeypatch, server, tmp_path):
    files = {}
    for position, name in enumerate(("train", "test")):
        images, labels = random_images(10, (32, 32, 3), 100, position)
        files[name] = python2_pickle({b"fine_labels": labels.tolist(), b"data": table(images)})
    archive = tar_gz(tmp_path / "made.tar.gz", "cifar-100-python", files).read_bytes()
    publish(monkeypatch, server, "cifar100", {"cifar-100-python.tar.gz": archive})
    assert load("cifar100").train.x.shape == (9, 32, 32, 3)
    assert server.asked == ["cifar-100-python.tar.gz"]


def test_wrong_checksum(mnist, server, own_cache):
    name = "t10k-labels-idx1-ubyte.gz"
    server.files[name] = mnist[name] + b"\0"
    expected = hashlib.md5(mnist[name]).hexdigest()
    with pytest.raises(
        DatasetError, match=f"{name} was downloaded but .* MD5 checksum {expected}.*discarded; try again"
    ):
        load("mnist")
    # Neither the wrong file nor a temporary one stays.
    assert sorted(path.name for path in (own_cache / "mnist").iterdir()) == sorted(set(mnist) - {name})
    server.files[name] = mnist[name]
    assert len(load("mnist").test.y) == 5


def test_a_file_damaged_in_the_cache(mnist, server, own_cache):
    load("mnist")
    path = own_cache / "mnist" / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    # The time stamp of the gzip header: the content would still be read without complaint.
    content[4] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"{path} has the MD5 checksum .* is published, .* delete it to have it"):
        load("mnist")
    path.unlink()
    load("mnist")
    assert server.asked[4:] == [path.name]


def test_the_same_file_outside_the_cache_is_taken_as_it_is(mnist, tmp_path):
    (tmp_path / "own").mkdir()
    for name, content in mnist.items():
        # Debian's files, for one, were compressed anew and differ from the published ones in their checksums.
        (tmp_path / "own" / name).write_bytes(gzip.compress(gzip.decompress(content), 1, mtime=1))
    assert load("mnist", data_dir=tmp_path / "own", download=False).train.x.shape == (10, 28, 28, 1)


def _missing(match):
    with pytest.raises(DatasetError, match=match) as caught:
        load("mnist")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_not_on_the_server(mnist, server, own_cache):
    del server.files["t10k-images-idx3-ubyte.gz"]
    message = _missing(r"download of .*/data/t10k-images-idx3-ubyte.gz failed \(404 Not Found\)")
    assert f"not found in {own_cache / 'mnist'}, and" in message
    assert (
        f"put the official files into {own_cache / 'mnist'}, or pass the folder that holds them as data_dir." in message
    )


def test_transfer_cut_short(mnist, server, own_cache):
    server.cut = 1
    _missing(r"mnist is missing: .* failed \((ChunkedEncodingError|ConnectionError)\)")
    assert list((own_cache / "mnist").iterdir()) == []


def test_no_connection(mnist, server, monkeypatch):
    import socket

    # A port that was free a moment ago: nobody answers there.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = dataclasses.replace(_sources.SOURCES["mnist"], url=f"http://127.0.0.1:{port}/")
    monkeypatch.setitem(_sources.SOURCES, "mnist", source)
    _missing(r"mnist is missing: .* failed \(ConnectionError\); put the official files into")
    assert server.asked == []


def test_a_cache_folder_that_cannot_be_made(mnist, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder would be")
    _missing(r"cannot be downloaded because the cache folder .* cannot be made \(.*\); let RELIN_CACHE name")


def test_published_addresses_and_checksums():
    """Transcribed once more from torchvision's datasets/mnist.py and cifar.py."""
    expected = {
        "mnist": {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        "fashion-mnist": {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        "cifar10": {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
        "cifar100": {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
    }
    assert {name: dict(source.downloads) for name, source in _sources.SOURCES.items()} == expected
