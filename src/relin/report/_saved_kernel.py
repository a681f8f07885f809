"""The drawing of a saved run's kernels: both as images in the order of the classes, and their spectra."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from relin.report._accuracy import SMALL
from relin.report._figures import save_png
from relin.report._style import Theme, new_figure

_SMALLEST = 1e-7  # of an eigenvalue in the figure, relative to the trace: below is the rounding of float32


def write_kernel_figure(
    initial: np.ndarray,
    final: np.ndarray,
    targets: np.ndarray,
    eigenvalues: tuple[np.ndarray, np.ndarray],
    title: str,
    end: str,
    folder: Path,
) -> Path:
    """Draw both kernels and their spectra as `kernel.png` in `folder`, and return its path.

    **Arguments:**

    - `initial`, `final`: kernels of shape (N, N), (N, N, C) or (N, N, C, C); the mean over outputs is shown.
    - `targets`: classes, shape (N,).
    - `eigenvalues`: of both kernels, decreasing.
    - `title`: the run in words.
    - `end`: what the second kernel is, in words.
    - `folder`: created where it does not exist.
    """
    drawn = (initial, final), targets, eigenvalues, title, ("step 0", end)
    return save_png(lambda theme: _draw(*drawn, theme), folder / "kernel.png")


def _draw(
    kernels: tuple[np.ndarray, np.ndarray],
    targets: np.ndarray,
    eigenvalues: tuple[np.ndarray, np.ndarray],
    title: str,
    names: tuple[str, str],
    theme: Theme,
) -> Figure:
    figure = new_figure(16.5, 5.6)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    first, second, spectrum = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    order = np.argsort(targets, kind="stable")
    images = [_normalised(_mean(kernel)[np.ix_(order, order)]) for kernel in kernels]
    highest = max(float(np.quantile(image, 0.999)) for image in images)
    lowest = min(0.0, *(float(np.quantile(image, 0.001)) for image in images))
    shown = None
    for axes, image, name in zip((first, second), images, names, strict=True):
        axes.grid(visible=False)
        shown = axes.imshow(image, vmin=lowest, vmax=highest, cmap=theme.colormap, interpolation="nearest")
        axes.set_title(f"kernel, {name}")
        _mark_classes(axes, targets[order], theme)
    assert shown is not None
    bar = figure.colorbar(shown, ax=[first, second], shrink=0.86, pad=0.015)
    bar.set_label("Θ / mean of its diagonal")
    _draw_spectra(spectrum, eigenvalues, names, theme)
    return figure


def _mean(kernel: np.ndarray) -> np.ndarray:
    """The trace over outputs divided by C."""
    if kernel.ndim == 4:
        return np.einsum("ijcc->ij", kernel) / kernel.shape[2]
    return kernel.mean(axis=2) if kernel.ndim == 3 else kernel


def _normalised(kernel: np.ndarray) -> np.ndarray:
    mean = float(np.mean(np.diag(kernel)))
    return kernel / mean if mean > 0 else kernel


def _mark_classes(axes: Axes, ordered: np.ndarray, theme: Theme) -> None:
    """Every class beside its rows, with lines between them."""
    classes, starts = np.unique(ordered, return_index=True)
    ends = np.append(starts[1:], ordered.size)
    for start in starts[1:]:
        for line in (axes.axhline, axes.axvline):
            line(start - 0.5, color=theme.background, linewidth=0.8, alpha=0.7)
    middles = (starts + ends - 1) / 2
    named = [str(name) for name in classes] if classes.size <= 20 else [""] * classes.size
    axes.set_xticks(middles, named, fontsize=SMALL)
    axes.set_yticks(middles, named, fontsize=SMALL)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("class")
    axes.set_ylabel("class")


def _draw_spectra(axes: Axes, eigenvalues: tuple[np.ndarray, np.ndarray], names: tuple[str, str], theme: Theme) -> None:
    """Eigenvalues over the trace against their rank."""
    styles = ((theme.lazy, "--"), (theme.ordinary, "-"))
    for values, name, (colour, style) in zip(eigenvalues, names, styles, strict=True):
        shares = values / max(float(values.sum()), np.finfo(float).tiny)
        visible = shares > _SMALLEST
        below = f", {(~visible).sum()} more at most {_SMALLEST:g}" if not visible.all() else ""
        axes.plot(np.flatnonzero(visible) + 1, shares[visible], style, color=colour, label=f"{name}{below}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_title("eigenvalue / trace")
    axes.set_xlabel("rank of the eigenvalue")
    axes.legend(loc="lower left")
