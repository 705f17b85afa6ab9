"""Pictures show the data they are given, the right way up."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import width_space
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn import pictures
from fem_dnn.depth import gauss_legendre
from fem_dnn.pictures.kernels import kernel_of
from fem_dnn.pictures.style import ColourScale
from fem_dnn.pictures.width import WidthNodes, cell_edges, over_depth

Array = NDArray[np.float64]

T = np.array([0.0, 0.5, 1.0, 2.0])
CONTROL_T, CONTROL_WEIGHTS = T[:-1], np.diff(T)  # resnet: levels at the starts of the layers


def solution(x: Array, weights: Array, samples: int = 3, seed: int = 0) -> dict[str, Array]:
    """What a solve could have left, with every number different."""
    rng = np.random.default_rng(seed)
    N = len(x)
    return {
        "x": x,
        "node_weights": weights,
        "t": T,
        "state": rng.standard_normal((len(T), samples, N)),
        "adjoint": rng.standard_normal((len(T), samples, N)),
        "control_t": CONTROL_T,
        "control_weights": CONTROL_WEIGHTS,
        "kernel": rng.standard_normal((len(CONTROL_T), N, N)),
        "bias": rng.standard_normal((len(CONTROL_T), N)),
        "outputs": rng.standard_normal((1, N)),
        "offsets": np.array([0.4]),
    }


def on_interval(nodes: int = 4, length: float = 2.0, **options: int) -> dict[str, Array]:
    x = length * (np.arange(nodes) + 0.5) / nodes
    return solution(x[:, None], np.full(nodes, length / nodes), **options)


def on_rectangle(nx: int = 3, ny: int = 2) -> dict[str, Array]:
    """(0, 3) x (0, 1), file order: first coordinate fastest."""
    first, second = 3 * (np.arange(nx) + 0.5) / nx, (np.arange(ny) + 0.5) / ny
    x = np.stack([np.tile(first, ny), np.repeat(second, nx)], axis=1)
    return solution(x, np.full(nx * ny, 3 / (nx * ny)))


def panels(figure: Figure) -> list[Axes]:
    """The axes that show images, without colour bars."""
    return [axes for axes in figure.axes if axes.images]


def image(axes: Axes) -> Array:
    return np.asarray(axes.images[0].get_array())


def limits(axes: Axes) -> tuple[float, float]:
    return axes.images[0].get_clim()


# Cells around nodes


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_cells_of_a_graded_interval_fill_it_and_hold_their_nodes(degree: int) -> None:
    ends = np.array([-1.0, 0.0, 0.1, 2.0])
    points, weights = gauss_legendre(degree + 1)
    nodes = (ends[:-1, None] + np.diff(ends)[:, None] * points).ravel()
    edges = cell_edges(nodes, np.outer(np.diff(ends), weights).ravel(), 3.0)
    np.testing.assert_allclose(edges[:: degree + 1], ends, atol=1e-14)
    assert np.all(edges[:-1] < nodes) and np.all(nodes < edges[1:])


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("cells", [(3, 4), (1, 4), (4, 1), (1, 1)])
def test_grids_of_nodes_are_recognised_and_fill_the_rectangle(
    cells: tuple[int, int], degree: int
) -> None:
    space = width_space(MPI.COMM_SELF, cells, degree, start=(-1.0, 2.0), length=(2.0, 2.0))
    edges = WidthNodes(space.nodes, space.node_weights).edges
    assert edges is not None
    for found, start, count in zip(edges, (-1.0, 2.0), cells, strict=True):
        expected = start + 2.0 * np.arange(count + 1) / count
        np.testing.assert_allclose(found[:: degree + 1], expected, atol=1e-9)


def test_scattered_nodes_are_no_grid() -> None:
    x = np.random.default_rng(0).uniform(size=(12, 2))
    assert WidthNodes(x, np.full(12, 1 / 12)).edges is None


def test_depth_is_shown_linear_between_the_slab_ends() -> None:
    edges, columns = over_depth(T, np.stack([T**2, -T], axis=1))
    middles = (edges[1:] + edges[:-1]) / 2
    assert len(middles) >= 200 and edges[0] == 0 and edges[-1] == 2
    np.testing.assert_allclose(columns[:, 0], np.interp(middles, T, T**2), atol=1e-13)
    np.testing.assert_allclose(columns[:, 1], -middles, atol=1e-13)


# Colour scales


def test_signed_fields_are_shown_symmetrically_about_zero() -> None:
    scale = ColourScale.of(np.array([-1.0, 0.0, 5.0]))
    assert scale.norm.vmin == -scale.norm.vmax
    assert 0 < scale.norm.vmax <= 5
    assert scale.cmap == "RdBu_r"


def test_fields_without_negative_values_are_shown_sequentially() -> None:
    scale = ColourScale.of(np.array([1.0, 2.0, 3.0]))
    assert (scale.norm.vmin, scale.cmap) == (1.0, "viridis")
    assert ColourScale.of(np.array([1.0, 2.0]), signed=True).norm.vmin < 0


def test_one_outlier_does_not_bleach_the_rest_and_is_told() -> None:
    values = np.append(np.linspace(-0.5, 1, 999), 100.0)
    scale = ColourScale.of(values)
    assert scale.norm.vmax < 2
    assert scale.extend == "max"
    assert ColourScale.of(np.linspace(-1.0, 1.0, 2)).extend == "neither"


@pytest.mark.parametrize("value", [0.0, 2.0])
@pytest.mark.parametrize("signed", [None, True])
def test_constant_fields_have_a_scale(value: float, signed: bool | None) -> None:
    scale = ColourScale.of(np.full(5, value), signed=signed)
    assert scale.norm.vmin < scale.norm.vmax


# Fields


def test_hidden_state_over_an_interval() -> None:
    arrays = on_interval()
    figure = pictures.hidden_state(arrays, [2, 0], labels=["a", "b"])
    axes = panels(figure)
    assert [a.get_title() for a in axes] == ["sample 2: a", "sample 0: b"]
    for panel, s in zip(axes, (2, 0), strict=True):
        columns = over_depth(T, arrays["state"][:, s])[1]
        np.testing.assert_array_equal(image(panel), columns.T)
        # Depth to the right, width upwards, over the whole of both.
        np.testing.assert_allclose([*panel.get_xlim(), *panel.get_ylim()], [0, 2, 0, 2])
        assert limits(panel)[0] == -limits(panel)[1] == limits(axes[0])[0]


def test_hidden_state_over_a_rectangle_is_the_right_way_up() -> None:
    arrays = on_rectangle()
    figure = pictures.hidden_state(arrays, [1, 2])
    axes = panels(figure)
    assert len(axes) == 2 * len(T)
    assert [a.get_title() for a in axes[:4]] == ["$t = 0$", "$t = 0.5$", "$t = 1$", "$t = 2$"]
    panel = axes[len(T) + 3]  # sample 2 at t = 2
    np.testing.assert_array_equal(image(panel), arrays["state"][3, 2].reshape(2, 3))
    np.testing.assert_allclose(panel.images[0].get_extent(), [0, 3, 0, 1])
    assert panel.images[0].origin == "lower"
    bottom, top = panel.get_ylim()
    assert bottom < top


def test_adjoint_state_is_signed_even_where_it_is_positive() -> None:
    arrays = on_interval()
    arrays["adjoint"] = np.abs(arrays["adjoint"])
    [panel] = panels(pictures.adjoint_state(arrays, [1]))
    np.testing.assert_array_equal(image(panel), over_depth(T, arrays["adjoint"][:, 1])[1].T)
    assert limits(panel)[0] == -limits(panel)[1]


def test_scattered_nodes_are_triangulated_but_not_across_holes() -> None:
    angle, radius = np.meshgrid(np.linspace(0, 2 * np.pi, 24, endpoint=False), [0.8, 0.9, 1.0])
    x = np.stack([(radius * np.cos(angle)).ravel(), (radius * np.sin(angle)).ravel()], axis=1)
    arrays = solution(x, np.full(len(x), np.pi * (1.05**2 - 0.75**2) / len(x)))
    figure = pictures.hidden_state(arrays, [0])
    drawn = figure.axes[1].collections[0]
    triangles = drawn._triangulation
    np.testing.assert_array_equal(drawn.get_array(), arrays["state"][1, 0])
    centres = x[triangles.get_masked_triangles()].mean(axis=1)
    assert np.linalg.norm(centres, axis=1).min() > 0.7


def test_scattered_nodes_on_a_line_are_drawn_too() -> None:
    arrays = solution(np.array([[0.1, 0.1], [0.4, 0.4], [0.5, 0.5]]), np.full(3, 1 / 3))
    drawn = pictures.hidden_state(arrays, [0]).axes[0].collections[0]
    np.testing.assert_array_equal(drawn.get_array(), arrays["state"][0, 0])


def test_bias_over_an_interval_fills_the_layers() -> None:
    arrays = on_interval()
    [panel] = panels(pictures.bias_field(arrays))
    np.testing.assert_array_equal(image(panel), arrays["bias"].T)
    np.testing.assert_allclose(panel.get_xlim(), [0, 2])
    # The third level's layer is (1, 2): twice as wide as the others.
    np.testing.assert_array_equal(
        panel.images[0].get_cursor_data(_event(panel, 1.9, 0.1)), arrays["bias"][2, 0]
    )
    assert limits(panel)[0] == -limits(panel)[1]


def _event(axes: Axes, x: float, y: float) -> object:
    class Event:
        pass

    event = Event()
    event.x, event.y = axes.transData.transform((x, y))  # type: ignore[attr-defined]
    event.xdata, event.ydata = x, y  # type: ignore[attr-defined]
    return event


# Kernel


def test_kernel_slices_over_an_interval() -> None:
    arrays = on_interval()
    arrays["kernel"][1] = 3.0  # norm 3 |Y|
    arrays["bias"][2] = -2.0  # norm 2 sqrt |Y|
    figure = pictures.kernel_slices(arrays)
    axes = panels(figure)
    for level, panel in enumerate(axes):
        np.testing.assert_array_equal(image(panel), arrays["kernel"][level])  # x up, y right
        np.testing.assert_allclose([*panel.get_xlim(), *panel.get_ylim()], [0, 2, 0, 2])
        assert limits(panel)[0] == -limits(panel)[1]
    assert (axes[0].get_xlabel(), axes[0].get_ylabel()) == ("$y$", "$x$")
    [norms] = [a for a in figure.axes if a.get_ylabel() == "norm"]
    of_a, of_b = (line.get_ydata() for line in norms.lines)
    assert of_a[1] == pytest.approx(6.0)
    assert of_b[2] == pytest.approx(2 * np.sqrt(2.0))


def test_kernel_over_a_rectangle_shows_receptive_fields() -> None:
    arrays = on_rectangle(5, 5)
    figure = pictures.kernel_slices(arrays)
    matrices, fields = panels(figure)[:3], panels(figure)[3:]
    for level, panel in enumerate(matrices):
        np.testing.assert_array_equal(image(panel), arrays["kernel"][level])
    assert len(fields) == 3 * 3
    seen = set()
    for number, panel in enumerate(fields):
        ring = np.array([panel.lines[0].get_xdata()[0], panel.lines[0].get_ydata()[0]])
        node = int(np.argmin(np.linalg.norm(arrays["x"] - ring, axis=1)))
        np.testing.assert_allclose(arrays["x"][node], ring)
        expected = arrays["kernel"][number % 3, node].reshape(5, 5)  # y -> a(x, y, t)
        np.testing.assert_array_equal(image(panel), expected)
        seen.add(node)
    assert len(seen) == 3


def test_a_kernel_held_by_its_factors_is_drawn_the_same() -> None:
    """As a wide result in Gram form holds it; `kernel` is not there."""
    for arrays in (on_interval(), on_rectangle(5, 5)):
        rng, shape = np.random.default_rng(0), (len(arrays["control_t"]), 2, len(arrays["x"]))
        q, f = rng.standard_normal((2, *shape))
        arrays["kernel"] = np.einsum("ksx,ksy->kxy", q, f) / 0.05
        whole = pictures.kernel_slices(arrays)
        del arrays["kernel"]
        made_by = json.dumps({"case": {"regularization": {"kernel": 0.05}}})
        parts = pictures.kernel_slices({**arrays, "q": q, "control_state": f, "made_by": made_by})
        for one, other in zip(panels(whole), panels(parts), strict=True):
            np.testing.assert_allclose(image(one), image(other), rtol=1e-12, atol=1e-12)
        lines = [
            [line.get_ydata() for axes in figure.axes for line in axes.lines]
            for figure in (whole, parts)
        ]
        for one, other in zip(*lines, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)


def test_of_a_wide_kernel_some_rows_and_columns_are_drawn_in_their_places() -> None:
    """a(x, y) = x - 2 y is seen where it is; what would be 20 GB on a level is not formed."""
    nodes, levels = 50_000, 2
    x = (np.arange(nodes) + 0.5) / nodes
    arrays = {
        "x": x[:, None],
        "node_weights": np.full(nodes, 1 / nodes),
        "control_t": np.array([0.0, 0.5]),
        "bias": np.ones((levels, nodes)),
        "q": np.stack([[x, np.ones(nodes)]] * levels) * 0.1,
        "control_state": np.stack([[np.ones(nodes), -2 * x]] * levels),
        "made_by": json.dumps({"case": {"regularization": {"kernel": 0.1}}}),
    }
    figure = pictures.kernel_slices(arrays)
    assert "512 of 50000 nodes" in figure.get_suptitle()
    panel = panels(figure)[1]
    assert image(panel).shape == (512, 512)
    np.testing.assert_allclose([*panel.get_xlim(), *panel.get_ylim()], [0, 1, 0, 1])
    for y, x in ((0.1, 0.9), (0.75, 0.3)):
        seen = panel.images[0].get_cursor_data(_event(panel, y, x))
        assert seen == pytest.approx(x - 2 * y, abs=2 * 3 / 512)
    [norms] = [a for a in figure.axes if a.get_ylabel() == "norm"]
    # int int (x - 2 y)^2 = 1/3 - 1 + 4/3
    assert norms.lines[0].get_ydata() == pytest.approx(np.sqrt([2 / 3] * levels), rel=1e-6)


def test_without_a_kernel_none_is_drawn() -> None:
    arrays = on_interval()
    arrays["kernel"] = np.zeros_like(arrays["kernel"])
    for gone in (arrays, {name: a for name, a in arrays.items() if name != "kernel"}):
        assert kernel_of(gone) is None, "which is where `standard_pictures` passes over it"
        with pytest.raises(ValueError, match="no kernel"):
            pictures.kernel_slices(gone)


# Training

HISTORY = [
    {
        "iteration": k,
        "objective": 2.0 + 100.0 ** (1 - k),
        "gradient_norm": 10.0**-k,
        "hessian_solves": 3 * k,
        "linear_iterations": 3 * k,
        "seconds": 0.5 * k,
        "accuracy": 1 - 0.5**k,
    }
    for k in range(4)
]


def test_convergence_shows_each_measure_against_each_effort() -> None:
    figure = pictures.convergence(HISTORY, target=1e-2)
    grid = np.array(figure.axes).reshape(3, 3)
    efforts = ["iteration", "hessian_solves", "seconds"]
    for row, measure in zip(grid, ["objective", "gradient_norm", "accuracy"], strict=True):
        for panel, effort in zip(row, efforts, strict=True):
            np.testing.assert_allclose(panel.lines[0].get_xdata(), [h[effort] for h in HISTORY])
            np.testing.assert_allclose(panel.lines[0].get_ydata(), [h[measure] for h in HISTORY])
    labels = [panel.get_xlabel() for panel in grid[-1]]
    assert labels == ["iteration", "Hessian products", "time [s]"]
    assert [row[0].get_yscale() for row in grid] == ["log", "log", "linear"]
    assert all(panel.lines[1].get_ydata()[0] == 1e-2 for panel in grid[1])


def test_convergence_without_what_a_method_does_not_have(tmp_path: Path) -> None:
    lines = [
        {"iteration": 0, "objective": 1.0, "gradient_norm": 1.0, "seconds": 0.0},
        {"iteration": 1, "objective": 0.0, "gradient_norm": 0.0, "seconds": 0.1},
    ]
    figure = pictures.convergence(lines)
    assert len(figure.axes) == 2 * 2
    assert {a.get_yscale() for a in figure.axes} == {"linear"}  # 0 has no logarithm
    pictures.save(figure, tmp_path / "c.png")
    with pytest.raises(ValueError, match="no history"):
        pictures.convergence([])


def matrix(figure: Figure) -> tuple[Array, dict[tuple[int, int], int]]:
    """Shares as coloured, and counts as written at (row, column)."""
    axes = figure.axes[0]
    texts = {
        (int(text.get_position()[1]), int(text.get_position()[0])): int(text.get_text())
        for text in axes.texts
    }
    return np.asarray(axes.collections[0].get_array()), texts


def test_confusion_counts_true_classes_in_rows() -> None:
    figure = pictures.confusion([0, 0, 0, 2, 2], [0, 0, 2, 2, 2], ["a", "b", "c"])
    shares, counts = matrix(figure)
    assert counts == {(0, 0): 2, (0, 2): 1, (2, 2): 2}
    np.testing.assert_allclose(shares, [[2 / 3, 0, 1 / 3], [0, 0, 0], [0, 0, 1]])
    assert figure.get_suptitle() == "Accuracy 80.0%  (4 of 5 samples)"
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b", "c"]
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first class in the first row, as matrices are written
    recognised = [t.get_text() for t in axes.child_axes[0].get_yticklabels()]
    assert recognised == ["66.7%", "–", "100.0%"]


def test_confusion_of_signs() -> None:
    figure = pictures.confusion([-1.0, 1.0, 1.0], [1.0, 1.0, 1.0], ["benign", "malignant"])
    assert matrix(figure)[1] == {(0, 1): 1, (1, 1): 2}
    named = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert named == ["benign", "malignant"]
    unnamed = pictures.confusion([-1, 1], [-1, 1]).axes[0].get_xticklabels()
    assert [t.get_text() for t in unnamed] == ["−1", "1"]


# Samples


def test_decision_regions() -> None:
    first, second = np.linspace(-1, 1, 21), np.linspace(0, 1, 11)
    after = 1 / (1 + np.exp(-40 * (second[:, None] - 0.5 - 0.2 * first)))
    train = (np.array([[-0.5, 0.2], [0.5, 0.8], [0.0, 0.1]]), np.array([-1, 1, -1]))
    test = (np.array([[0.1, 0.9]]), np.array([1]))
    figure = pictures.decision_regions(
        {"before": np.full_like(after, 0.5), "after": after},
        (first, second),
        train,
        test=test,
        class_names=["outer", "inner"],
    )
    before, trained = panels(figure)
    np.testing.assert_array_equal(image(trained), after)
    assert limits(trained) == (0, 1)
    assert trained.images[0].origin == "lower"
    np.testing.assert_allclose(trained.images[0].get_extent(), [-1.05, 1.05, -0.05, 1.05])
    contour, discs, diamonds = trained.collections
    for x, y in contour.get_paths()[0].vertices:
        assert y == pytest.approx(0.5 + 0.2 * x, abs=0.01)  # where the probability is one half
    np.testing.assert_array_equal(discs.get_offsets(), train[0])
    np.testing.assert_array_equal(diamonds.get_offsets(), test[0])
    colours = discs.get_facecolors()
    assert (colours[0] == colours[2]).all() and not (colours[0] == colours[1]).all()
    np.testing.assert_array_equal(diamonds.get_facecolors()[0], colours[1])
    assert len(before.collections) == 2  # undecided everywhere: no boundary
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["outer", "inner", "training", "test"]


def test_principal_components_are_those_of_l2() -> None:
    """Two L2-orthonormal functions on an uneven mesh, of known amplitudes, are found again."""
    weights = np.array([0.1, 0.4, 0.2, 0.3])
    phi = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, 1 / 3]])
    phi /= np.sqrt(phi**2 @ weights)[:, None]
    assert abs(phi[0] * phi[1] @ weights) < 1e-15
    rng = np.random.default_rng(1)
    c = rng.standard_normal((5 * 7, 2))
    c -= c.mean(axis=0)
    c = np.linalg.qr(c)[0] * [5.0, 2.0]
    state = (7.0 + c @ phi).reshape(5, 7, 4)
    found, share = pictures.principal_components(state, weights)
    np.testing.assert_allclose(np.abs(found.reshape(-1, 2)), np.abs(c), atol=1e-12)
    np.testing.assert_allclose(share, [25 / 29, 4 / 29])


def test_trajectories_start_at_the_inputs_and_end_at_the_outputs() -> None:
    arrays = on_interval(samples=4)
    labels = np.array([1, -1, 1, -1])
    figure = pictures.trajectories(arrays, labels, class_names=["out", "in"])
    states, output = figure.axes
    c, _ = pictures.principal_components(arrays["state"], arrays["node_weights"])
    for s, line in enumerate(states.lines):
        np.testing.assert_array_equal(np.stack(line.get_data(), axis=1), c[:, s])
    rings, discs = states.collections
    np.testing.assert_array_equal(rings.get_offsets(), c[0])
    np.testing.assert_array_equal(discs.get_offsets(), c[-1])
    z = arrays["state"] @ (0.5 * arrays["outputs"][0]) + 0.4  # cells of length 1/2
    for s, line in enumerate(output.lines):
        np.testing.assert_allclose(line.get_ydata(), z[:, s])
    colours = [line.get_color() for line in states.lines]
    assert colours[0] == colours[2] != colours[1] == colours[3]
    assert colours == [line.get_color() for line in output.lines]
    key = figure.legends[0]
    assert [text.get_text() for text in key.get_texts()] == ["out", "in"]
    assert [line.get_color() for line in key.get_lines()] == [colours[1], colours[0]]


def test_trajectories_of_a_single_neuron() -> None:
    arrays = on_interval(nodes=1)
    del arrays["outputs"]
    [states] = pictures.trajectories(arrays).axes
    for s, line in enumerate(states.lines):
        np.testing.assert_array_equal(line.get_xdata(), T)
        f = arrays["state"][:, s, 0] - arrays["state"].mean()
        assert abs(np.corrcoef(line.get_ydata(), f)[0, 1]) == pytest.approx(1)


# Files


def test_a_picture_is_written_whole_with_its_origin(tmp_path: Path) -> None:
    figure = pictures.bias_field(on_interval())
    path = pictures.save(figure, tmp_path / "b.png")
    assert imread(path).shape[:2] == tuple(int(160 * s) for s in figure.get_size_inches()[::-1])
    assert b"fem-dnn" in path.read_bytes()
    text = pictures.save(figure, tmp_path / "b.svg").read_text()
    assert "<svg" in text and "fem-dnn" in text


def test_a_picture_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "b.png"
    path.write_bytes(b"old")
    figure = pictures.bias_field(on_interval())
    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(KeyboardInterrupt):
        pictures.save(figure, path)
    assert [p.name for p in tmp_path.iterdir()] == ["b.png"]
    assert path.read_bytes() == b"old"


def test_unknown_formats_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf"):
        pictures.save(pictures.bias_field(on_interval()), tmp_path / "b.bmp")


@pytest.mark.parametrize("arrays", [on_interval(), on_rectangle()], ids=["interval", "rectangle"])
def test_standard_pictures(tmp_path: Path, arrays: dict[str, Array]) -> None:
    files = pictures.standard_pictures(arrays, HISTORY, tmp_path, labels=["p", "q", "r"])
    names = ["hidden_state", "adjoint_state", "kernel", "bias", "convergence"]
    assert [file.name for file in files] == [f"{name}.png" for name in names]
    for file in files:
        picture = imread(file)[..., :3]
        assert picture.std() > 0.02  # something was drawn


def test_standard_pictures_leave_out_what_is_not_there(tmp_path: Path) -> None:
    arrays = on_interval()
    arrays["kernel"] = np.zeros_like(arrays["kernel"])
    del arrays["adjoint"]
    files = pictures.standard_pictures(arrays, [], tmp_path, suffix=".svg")
    assert [file.name for file in files] == ["hidden_state.svg", "bias.svg"]


def test_pictures_leave_pyplot_alone() -> None:
    """pyplot keeps figures alive and may look for a display."""
    code = "import sys, fem_dnn.pictures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
