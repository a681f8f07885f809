"""Writers of small files in the official formats, and the normalisation written out: oracles of the readers."""

import gzip
import io
import struct
import tarfile

import numpy as np

IDX_TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
IDX_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CIFAR10_BINARY = (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")
CIFAR10_PYTHON = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")


def random_images(num, shape, num_classes, seed):
    """Random byte images (num, height, width, channels) and labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num, *shape), np.uint8), rng.integers(0, num_classes, num)


def normalised(images, train_images):
    """The definition: (pixel/255 − mean)/std per channel, over the training images."""
    scaled = train_images.astype(np.float64) / 255
    return (images / 255 - scaled.mean(axis=(0, 1, 2))) / scaled.std(axis=(0, 1, 2))


def idx_images(images):
    num, height, width = images.shape[:3]
    return struct.pack(">IIII", 0x00000803, num, height, width) + bytes(images.reshape(-1).tolist())


def idx_labels(labels):
    return struct.pack(">II", 0x00000801, len(labels)) + bytes(labels.tolist())


def write_idx(folder, train, test, compress=True):
    """The four IDX files of (images, labels) pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    for names, (images, labels) in ((IDX_TRAIN, train), (IDX_TEST, test)):
        for name, content in zip(names, (idx_images(images), idx_labels(labels)), strict=True):
            if compress:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, 1))
            else:
                (folder / name).write_bytes(content)
    return folder


def planar(image):
    """The 3072 bytes of one image (32, 32, 3): red, green and blue planes, row by row."""
    return b"".join(
        bytes(int(image[row, column, channel]) for row in range(32) for column in range(32)) for channel in range(3)
    )


def binary(images, labels, coarse=None):
    """A file of CIFAR's binary layout; with coarse labels, CIFAR-100's."""
    prefixes = [bytes([int(label)]) for label in labels]
    if coarse is not None:
        prefixes = [bytes([int(c)]) + prefix for c, prefix in zip(coarse, prefixes, strict=True)]
    return b"".join(prefix + planar(image) for prefix, image in zip(prefixes, images, strict=True))


def _string(text):
    short = len(text) < 256
    return (b"U" + bytes([len(text)]) if short else b"T" + struct.pack("<i", len(text))) + text


def _integer(value):
    return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)


def python2_array(table):
    """The opcodes by which Python 2's cPickle writes a uint8 array (N, M) at protocol 2."""
    return b"".join(
        (
            b"cnumpy.core.multiarray\n_reconstruct\n",
            b"cnumpy\nndarray\n" + _integer(0) + b"\x85" + _string(b"b") + b"\x87R",
            b"(" + _integer(1) + _integer(table.shape[0]) + _integer(table.shape[1]) + b"\x86",
            b"cnumpy\ndtype\n" + _string(b"u1") + _integer(0) + _integer(1) + b"\x87R",
            b"(" + _integer(3) + _string(b"|") + b"NNN" + _integer(-1) + _integer(-1) + _integer(0) + b"tb",
            b"\x89" + _string(table.tobytes()) + b"tb",
        )
    )


def python2_pickle(entries):
    """A dict of byte strings, lists of integers and uint8 tables, as Python 2 writes it at protocol 2."""
    out = [b"\x80\x02}("]
    for key, value in entries.items():
        out.append(_string(key))
        if isinstance(value, bytes):
            out.append(_string(value))
        elif isinstance(value, list):
            out.append(b"](" + b"".join(map(_integer, value)) + b"e")
        else:
            out.append(python2_array(value))
    return b"".join(out) + b"u."


def table(images):
    """Images as CIFAR's pickled table (N, 3072)."""
    return np.frombuffer(b"".join(map(planar, images)), np.uint8).reshape(-1, 3072)


def tar_gz(path, folder, files):
    """An archive as published: a folder with the files."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_files(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
