"""Where the file datasets come from: official names, layouts, addresses and checksums."""

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class Layout:
    """One official form of a dataset's files.

    **Attributes:**

    - `reader`: which reader understands the files; for `idx`, `train` and `test` are each (images, labels).
    - `train`, `test`: official file names; IDX files may also be gzipped, with `.gz` appended.
    - `folders`: names of subfolders the files are commonly found in.
    - `archive`: name of the tar file that holds them all, if there is one.
    """

    reader: Literal["idx", "cifar-binary", "cifar-pickle"]
    train: tuple[str, ...]
    test: tuple[str, ...]
    folders: tuple[str, ...]
    archive: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """All official file names."""
        return self.train + self.test


@dataclass(frozen=True)
class Source:
    """A dataset that is read from files.

    **Attributes:**

    - `name`: as `load` takes it.
    - `layouts`: official forms, the preferred one first.
    - `image_shape`: height, width, channels.
    - `num_classes`: C.
    - `num_train`, `num_test`: of the published dataset.
    - `held_out`: the last one in `held_out` of the training images are the validation split.
    - `url`: address of the folder that `downloads` are fetched from.
    - `downloads`: files to fetch, each with its published MD5.
    - `md5`: further published checksums, of files that may lie in the cache.
    - `first_labels`: with which the official training set begins, if another dataset has the same file names.
    - `system_folders`: where a package of the operating system puts the files.
    - `system_package`: that package.
    """

    name: str
    layouts: tuple[Layout, ...]
    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    num_test: int
    held_out: int
    url: str
    downloads: MappingProxyType[str, str]
    md5: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))
    first_labels: tuple[int, ...] | None = None
    system_folders: tuple[str, ...] = ()
    system_package: str | None = None

    def wanted(self) -> str:
        """The files it can be read from, for people."""
        if self.layouts[0].reader == "idx":
            return ", ".join(self.layouts[0].files) + " (each plain or .gz)"
        return " or ".join(f"{layout.archive} (or its folder {layout.folders[0]})" for layout in self.layouts)


def _idx(*folders: str) -> tuple[Layout, ...]:
    return (
        Layout(
            reader="idx",
            train=("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
            test=("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
            folders=folders,
        ),
    )


# The binary layout comes first: it needs no unpickling.
_CIFAR10 = (
    Layout(
        reader="cifar-binary",
        train=tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
        test=("test_batch.bin",),
        folders=("cifar-10-batches-bin",),
        archive="cifar-10-binary.tar.gz",
    ),
    Layout(
        reader="cifar-pickle",
        train=tuple(f"data_batch_{k}" for k in range(1, 6)),
        test=("test_batch",),
        folders=("cifar-10-batches-py",),
        archive="cifar-10-python.tar.gz",
    ),
)
_CIFAR100 = (
    Layout("cifar-binary", ("train.bin",), ("test.bin",), ("cifar-100-binary",), "cifar-100-binary.tar.gz"),
    Layout("cifar-pickle", ("train",), ("test",), ("cifar-100-python",), "cifar-100-python.tar.gz"),
)

# MNIST: LeCun et al. 1998; the mirror and checksums are those torchvision uses.
_MNIST = Source(
    name="mnist",
    layouts=_idx("MNIST/raw"),
    image_shape=(28, 28, 1),
    num_classes=10,
    num_train=60_000,
    num_test=10_000,
    held_out=6,
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    downloads=MappingProxyType(
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        }
    ),
    first_labels=(5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
)

# Fashion-MNIST: Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747.
_FASHION_MNIST = Source(
    name="fashion-mnist",
    layouts=_idx("FashionMNIST/raw"),
    image_shape=(28, 28, 1),
    num_classes=10,
    num_train=60_000,
    num_test=10_000,
    held_out=6,
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    downloads=MappingProxyType(
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        }
    ),
    first_labels=(9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
    system_folders=("/usr/share/datasets/fashion-mnist",),
    system_package="Debian's package dataset-fashion-mnist",
)


def _cifar(name: str, layouts: tuple[Layout, ...], num_classes: int, python: str, binary: str) -> Source:
    # CIFAR: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"; MD5s from its page.
    return Source(
        name=name,
        layouts=layouts,
        image_shape=(32, 32, 3),
        num_classes=num_classes,
        num_train=50_000,
        num_test=10_000,
        held_out=10,
        url="https://www.cs.toronto.edu/~kriz/",
        downloads=MappingProxyType({str(layouts[1].archive): python}),
        md5=MappingProxyType({str(layouts[0].archive): binary}),
    )


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        _MNIST,
        _FASHION_MNIST,
        _cifar("cifar10", _CIFAR10, 10, "c58f30108f718f92721af3b95e74349a", "c32a1d4ab5d03f1284b67883e8d87530"),
        _cifar("cifar100", _CIFAR100, 100, "eb9058c3a382ffc7106e4002c42a8d85", "03b5dce01913d631647c71ecec9e9cb8"),
    )
}
