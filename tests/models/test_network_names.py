"""Networks by name: what is offered and what is refused."""

import inspect

import jax
import numpy as np
import pytest

from relin import models
from relin.models._names import OPTIONS

KEY = jax.random.key(0)


def test_names_and_options():
    assert models.names() == ("mlp", "cnn", "lenet5", "vgg11", "resnet18", "wide-resnet", "vit", "gpt")
    assert models.options("mlp") == {"width": 256, "depth": 2, "activation": "relu", "parametrisation": "standard"}
    assert models.options("resnet18")["norm"] == "group"
    for name in models.names():
        assert tuple(models.options(name)) == OPTIONS[name]  # what settings are checked by
        assert not {"key", "input_shape", "num_classes"} & set(models.options(name))


@pytest.mark.parametrize(
    ("name", "shape", "network"),
    [
        ("mlp", (4,), models.MLP),
        ("cnn", (8, 1), models.CNN),
        ("lenet5", [28, 28, 1], models.LeNet5),
        ("resnet18", (8, 8, 3), models.ResNet18),
    ],
)
def test_build_is_the_class(name, shape, network):
    options = models.options(name) | {"width": 2}
    built = models.build(name, shape, 3, key=KEY, **options)
    assert type(built) is network
    direct = network(shape, 3, key=KEY, **options)
    assert jax.tree.structure(built) == jax.tree.structure(direct)
    for leaf, other in zip(jax.tree.leaves(built), jax.tree.leaves(direct), strict=True):
        np.testing.assert_array_equal(leaf, other)
    assert jax.eval_shape(built, jax.numpy.ones(shape)).shape == (3,)
    assert models.options(name).keys() <= inspect.signature(network).parameters.keys()


REFUSALS = [
    ("resnet-18", (8, 8, 3), {}, r"`name` must be one of 'mlp', .*, got 'resnet-18'; did you mean 'resnet18'\?"),
    ("swin", (8, 8, 3), {}, r"`name` must be one of 'mlp', 'cnn', .*'gpt', got 'swin'\."),
    ("mlp", (8,), {"widht": 3}, r"'mlp' takes the options width, .*, got `widht`; did you mean 'width'\?"),
    ("mlp", (8,), {"convolution": "lax"}, r"'mlp' takes the options width, .*, got `convolution`"),
    ("mlp", (), {}, r"MLP takes inputs of shape .*, got input_shape=\(\); pass the shape of one example"),
    ("mlp", 8, {}, r"MLP takes inputs of shape .*, got input_shape=8; pass"),
    ("cnn", (28,), {}, r"CNN takes inputs of shape \(length, channels\) or \(height, width, channels\), got .*\(28,\)"),
    ("cnn", (2, 28, 28, 1), {}, r"CNN takes inputs of shape .*; pass the shape of one example, channels last"),
    ("cnn", (28, 0, 1), {}, r"CNN takes inputs of shape .*, got input_shape=\(28, 0, 1\)"),
    ("lenet5", (30, 30, 1), {}, r"LeNet5 takes inputs of shape .*, got input_shape=\(30, 30, 1\); use CNN"),
    ("lenet5", (28, 1), {}, r"LeNet5 takes inputs of shape \(28, 28, channels\)"),
    ("resnet18", (32, 3), {}, r"ResNet18 takes inputs of shape \(height, width, channels\)"),
    ("resnet18", (8, 8, 3), {"norm": "bath"}, r"`norm` must be one of .*, got 'bath'; did you mean 'batch'\?"),
    ("wide-resnet", (8, 8, 3), {"depth": 18}, r"`depth` must be 6 n \+ 4 .*, got 18; pass, for example, 16"),
    ("vgg11", (8, 8), {}, r"VGG11 takes inputs of shape \(height, width, channels\)"),
    ("vit", (9, 8, 3), {}, r"sides are multiples of `patch`, 4, got .*\(9, 8, 3\); pass another"),
    ("vit", (8, 8, 3), {"num_heads": 5}, r"`width` must be a multiple of `num_heads`, got 192 and 5"),
    ("vit", (8, 8, 3), {"dropout": 1}, r"`dropout` must be at least 0 and less than 1, got 1"),
    ("gpt", (8, 1), {}, r"GPT takes inputs of shape \(length,\), integer tokens"),
    ("mlp", (8,), {"activation": "rellu"}, r"`activation` must be one of .*, got 'rellu'; did you mean 'relu'\?"),
    ("mlp", (8,), {"parametrisation": "NTK"}, r"`parametrisation` must be one of 'standard', 'ntk', got 'NTK'"),
    ("mlp", (8,), {"width": 0}, r"`width` must be an integer of at least 1, got 0"),
    ("cnn", (8, 1), {"width": 2.5}, r"`width` must be an integer of at least 1, got 2\.5"),
    ("cnn", (8, 1), {"convolution": "fft"}, r"`convolution` must be one of 'auto', 'patches', 'lax', got 'fft'"),
    ("cnn", (8, 1), {"kernel_size": True}, r"`kernel_size` must be an integer of at least 1, got True"),
    ("mlp", (8,), {"width": 10**6}, r"`width` must be at most 100,000, got 1,000,000; choose a smaller one"),
    ("vit", (8, 8, 3), {"depth": 10**6}, r"`depth` must be at most 1,000, got 1,000,000"),
    ("mlp", (8,), {"depth": -1}, r"`depth` must be an integer of at least 0, got -1"),
]


@pytest.mark.parametrize(("name", "shape", "options", "message"), REFUSALS)
def test_build_refuses(name, shape, options, message):
    with pytest.raises(ValueError, match=message) as refusal:
        models.build(name, shape, 3, key=KEY, **options)
    assert "\n" not in str(refusal.value)


def test_number_of_classes_and_name_of_options_are_checked():
    for name, shape in (("mlp", (8,)), ("cnn", (8, 1)), ("lenet5", (28, 28, 1)), ("resnet18", (8, 8, 3))):
        with pytest.raises(ValueError, match="`num_classes` must be an integer of at least 1, got 0"):
            models.build(name, shape, 0, key=KEY, width=1)
    with pytest.raises(ValueError, match="did you mean 'lenet5'"):
        models.options("lenet")
