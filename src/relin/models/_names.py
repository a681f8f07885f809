"""The names of networks and of their options: what is known of them before JAX is imported."""

_SHARED = ("activation", "parametrisation", "convolution")
OPTIONS: dict[str, tuple[str, ...]] = {
    "mlp": ("width", "depth", "activation", "parametrisation"),
    "cnn": ("width", "kernel_size", *_SHARED),
    "lenet5": ("width", *_SHARED),
    "vgg11": ("width", "norm", *_SHARED),
    "resnet18": ("width", "norm", *_SHARED),
    "wide-resnet": ("depth", "widen", "norm", *_SHARED),
    "vit": ("patch", "width", "depth", "num_heads", "dropout"),
    "gpt": ("width", "depth", "num_heads", "dropout"),
}
"""Of each network by its name, in the order of its signature."""


def names() -> tuple[str, ...]:
    """The names that `build` takes."""
    return tuple(OPTIONS)
