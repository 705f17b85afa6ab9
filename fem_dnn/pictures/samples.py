"""What the network does to the samples: decision regions and trajectories through depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh

from fem_dnn.pictures.fields import DEPTH
from fem_dnn.pictures.style import (
    CLASS_COLOURS,
    FAINT,
    INK,
    TWO_CLASSES,
    ColourScale,
    dress,
    dress_curves,
    grid,
    label_texts,
    new_figure,
)

Array = NDArray[np.float64]
Points = tuple[ArrayLike, ArrayLike]
"""Features, shape (samples, 2), and the two labels, shape (samples,), of which the larger is +1."""

_MOST_CURVES = 200
"""More trajectories than these hide one another; an even choice is drawn instead."""


def decision_regions(
    regions: Mapping[str, Array],
    axes_values: tuple[Array, Array],
    train: Points,
    *,
    test: Points | None = None,
    class_names: Sequence[str] | None = None,
    feature_names: Sequence[str] = ("feature 1", "feature 2"),
    title: str = "Decision regions",
) -> Figure:
    """Probability of the second of two classes over two features, with the samples.

    Args:
        regions: For each panel its title (e.g. "before training", "after training") and the
            probabilities, shape (second feature, first feature).
        axes_values: Equally spaced values of the first and of the second feature.
        train: Training samples, drawn as discs.
        test: Test samples, drawn as diamonds.
        class_names: Names of the two classes; default: the labels.
        feature_names: What the axes show.
        title: What is seen.
    """
    first, second = axes_values
    extent = (*_edges(first), *_edges(second))
    scale = ColourScale(Normalize(0, 1), TWO_CLASSES, "neither")
    figure = new_figure(1.2 + 3.0 * len(regions), 4.0, title)
    panels = grid(figure, len(regions), len(regions))
    classes = np.unique(np.concatenate([np.asarray(part[1]) for part in (train, test) if part]))
    names = label_texts(classes) if class_names is None else list(class_names)
    for panel, (text, probability) in zip(panels, regions.items(), strict=True):
        drawn = panel.imshow(
            probability, extent=extent, origin="lower", norm=scale.norm, cmap=scale.cmap,
            interpolation="bilinear", alpha=0.65,
        )  # fmt: skip
        if np.min(probability) < 0.5 < np.max(probability):
            panel.contour(first, second, probability, [0.5], colors=INK, linewidths=1.1)
        for part, marker, size in ((train, "o", 17), (test, "D", 19)):
            if part is not None:
                _scatter(panel, part, classes, marker, size)
        panel.set(xlim=_edges(first), ylim=_edges(second))
        dress(panel, title=text, x=feature_names[0])
    panels[0].set_ylabel(feature_names[1])
    scale.key(figure, drawn, panels, f"probability of {names[-1]}")
    handles = [_handle("o", CLASS_COLOURS[k], name) for k, name in enumerate(names)]
    if test is not None:
        handles += [_handle("o", "white", "training"), _handle("D", "white", "test")]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9
    )
    return figure


def _edges(values: Array) -> tuple[float, float]:
    half = (values[1] - values[0]) / 2
    return float(values[0] - half), float(values[-1] + half)


def _scatter(axes: Axes, part: Points, classes: Array, marker: str, size: float) -> None:
    points, labels = np.asarray(part[0]), np.asarray(part[1])
    colours = np.array(CLASS_COLOURS)[np.searchsorted(classes, labels)]
    x, y = points.T
    axes.scatter(x, y, c=colours, s=size, marker=marker, edgecolors=INK, linewidths=0.6, zorder=3)


def _handle(marker: str, colour: str, label: str) -> Line2D:
    return Line2D([], [], ls="", marker=marker, ms=5, mfc=colour, mec=INK, mew=0.6, label=label)


def principal_components(state: Array, node_weights: Array, count: int = 2) -> tuple[Array, Array]:
    """Leading principal components of all states, in the inner product of L2(Y).

    Args:
        state: Shape (layers + 1, samples, nodes).
        node_weights: Quadrature weights, shape (nodes,).
        count: How many, at most the number of nodes.

    Returns:
        Coordinates c_k = (f - mean, phi_k), shape (layers + 1, samples, count), and the share of
        the total variance that each explains, shape (count,). The components phi_k are
        L2-orthonormal and point so that most of their mass is positive.
    """
    flat = state.reshape(-1, state.shape[-1])
    scaled = (flat - flat.mean(axis=0)) * np.sqrt(node_weights)
    nodes = scaled.shape[1]
    covariance = scaled.T @ scaled / len(scaled)
    variances, vectors = eigh(covariance, subset_by_index=[max(nodes - count, 0), nodes - 1])
    vectors = vectors[:, ::-1] * np.where(vectors[:, ::-1].sum(axis=0) < 0, -1.0, 1.0)
    share = np.maximum(variances[::-1], 0) / (np.trace(covariance) or 1.0)
    return (scaled @ vectors).reshape(*state.shape[:2], -1), share


def trajectories(
    arrays: Mapping[str, Any],
    labels: ArrayLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """How samples move through depth, coloured by class.

    Left: the two leading principal components of the states in L2(Y), over all samples and
    depths; rings mark t = 0, discs t = T. Right, where the network has one output: the output
    z_s(t) = int_Y W f_s(t) dx + m over depth.

    Args:
        arrays: `t`, `state` and `node_weights` of a `solution.npz`, and `outputs` and `offsets`
            where it has an output layer.
        labels: Class of each sample; None: all of one colour.
        class_names: Names of the classes in increasing order of their labels.
    """
    t, state = np.asarray(arrays["t"]), np.asarray(arrays["state"])
    weights, samples = np.asarray(arrays["node_weights"]), state.shape[1]
    labels = np.zeros(samples) if labels is None else np.asarray(labels)
    classes, number = np.unique(labels, return_inverse=True)
    colours = [CLASS_COLOURS[k % len(CLASS_COLOURS)] for k in number]
    shown = np.unique(np.linspace(0, samples - 1, min(samples, _MOST_CURVES)).astype(int))

    one_output = len(arrays.get("outputs", ())) == 1
    figure = new_figure(4.6 + 4.0 * one_output, 3.9, "Samples through depth")
    panels = figure.subplots(1, 1 + one_output, squeeze=False)[0]
    _draw_components(panels[0], t, *principal_components(state, weights), shown, colours)
    if one_output:
        z = state @ (weights * arrays["outputs"][0]) + arrays["offsets"][0]
        for s in shown:
            panels[1].plot(t, z[:, s], color=colours[s], lw=0.9, alpha=0.7)
        panels[1].set_xlim(t[0], t[-1])
        dress_curves(panels[1], title="output", x=DEPTH, y="$z_s(t)$")
    if len(classes) > 1:
        names = label_texts(classes) if class_names is None else class_names
        handles = [
            Line2D([], [], lw=2.5, color=CLASS_COLOURS[k % len(CLASS_COLOURS)], label=name)
            for k, name in enumerate(names)
        ]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=5 * (1 + one_output),
            frameon=False, fontsize=9, handlelength=1.2, columnspacing=1.4,
        )  # fmt: skip
    return figure


def _draw_components(
    axes: Axes, t: Array, c: Array, share: Array, shown: Array, colours: Sequence[str]
) -> None:
    if len(share) == 1:  # a single neuron: its value over depth is all there is
        across, texts = np.broadcast_to(t[:, None], c.shape[:2]), [DEPTH, "state $f_s$ (centred)"]
        up = c[..., 0]
    else:
        across, up = c[..., 0], c[..., 1]
        texts = [f"component {k + 1}  ({share[k]:.0%} of the variance)" for k in range(2)]
    for s in shown:
        axes.plot(across[:, s], up[:, s], color=colours[s], lw=0.9, alpha=0.6)
    colour = np.array(colours)[shown]
    axes.scatter(
        across[0, shown], up[0, shown], s=13, facecolors="white", edgecolors=colour, zorder=3
    )
    axes.scatter(
        across[-1, shown], up[-1, shown], s=15, c=colour, edgecolors=INK, linewidths=0.4, zorder=4
    )
    handles = [
        Line2D([], [], ls="", marker="o", ms=4.5, mfc=fill, mec=FAINT, label=text)
        for fill, text in (("white", "$t = 0$"), (FAINT, "$t = T$"))
    ]
    axes.legend(handles=handles, frameon=False, fontsize=8.5, handletextpad=0.1, loc="best")
    dress_curves(axes, title="states", x=texts[0], y=texts[1])
