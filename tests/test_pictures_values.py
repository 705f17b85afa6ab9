"""Pictures of the value function in one, two and three state dimensions."""

import numpy as np
import pytest

from fem_dnn import pictures

SHAPES = {1: (1, 1), 2: (2, 1), 3: (1, 3)}


def arrays_of(dimension):
    axes = [np.linspace(-1, 1 + i, 12) for i in range(dimension)]
    distance = sum(a**2 for a in np.meshgrid(*axes, indexing="ij"))
    t = np.linspace(0, 1, 5)[: 1 if dimension == 3 else 5]
    path = np.linspace(0.5, 0.1, 7)[:, None, None] * np.ones((1, *SHAPES[dimension]))
    kinks = np.zeros((len(t), *distance.shape), dtype=bool)
    kinks[0, 3] = True
    arrays = {f"axis_{i}": axis for i, axis in enumerate(axes)} | {
        "t": t,
        "values": np.stack([distance / (2 - s) for s in t]) - 1e-12,
        "kinks": kinks,
        "input": path[0],
        "closed_t": np.linspace(0, 1, 7),
        "closed_state": path,
        "gradient_t": np.linspace(0, 1, 7),
        "value_gradient": path,
        "adjoint": path,
    }
    return arrays, {"t": np.linspace(0, 1, 7), "state": path}


@pytest.mark.parametrize(("dimension", "panels"), [(1, 1), (2, 3), (3, 3)])
def test_value_function(tmp_path, dimension, panels):
    arrays, open_loop = arrays_of(dimension)
    figure = pictures.value_function(arrays, open_loop)
    drawn = [axes for axes in figure.axes if axes.get_xlabel()]
    assert len(drawn) == panels
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "open loop (optimality system)" in texts
    assert "$V$ not differentiable" in texts
    for axes in figure.axes:
        if axes not in drawn:  # colour bars
            low, high = axes.get_ylim()
            assert all(low <= tick <= high for tick in axes.get_yticks())
    assert pictures.save(figure, tmp_path / "value.png").stat().st_size > 10_000


def test_without_open_loop_and_kinks():
    arrays, _ = arrays_of(2)
    figure = pictures.value_function(arrays | {"kinks": np.zeros_like(arrays["kinks"])}, {})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["closed loop"]


def test_value_gradient():
    arrays, _ = arrays_of(3)
    [axes] = pictures.value_gradient(arrays).axes
    assert len(axes.lines) == 6
