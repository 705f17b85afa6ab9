"""Embeddings: norms, orientation of pictures, independence of the mesh, meshes too coarse."""

import numpy as np
import pytest

from fem_dnn.datasets import EMBEDDINGS, embed, load
from fem_dnn.datasets.embeddings import cosine_modes, mode_numbers
from fem_dnn.errors import BadInput

RNG_FEATURES = np.random.default_rng(0).standard_normal((5, 7))


def interval(cells, low=-1.0, high=2.0):
    """Midpoints of equal cells, as a mesh of degree 0 has them."""
    x = low + (high - low) * (np.arange(cells) + 0.5) / cells
    return x[:, None], np.full(cells, (high - low) / cells), (np.array([low]), np.array([high]))


def rectangle(nx, ny, low=(-1.0, 2.0), high=(2.0, 4.0)):
    """Midpoints in file order: the second coordinate slowest."""
    low, high = np.array(low), np.array(high)
    unit = np.stack(
        [np.tile((np.arange(nx) + 0.5) / nx, ny), np.repeat((np.arange(ny) + 0.5) / ny, nx)], axis=1
    )
    size = high - low
    return low + size * unit, np.full(nx * ny, np.prod(size) / (nx * ny)), (low, high)


MESHES = {"interval": interval(84), "rectangle": rectangle(12, 12)}


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("embedding", ["modes", "cells"])
def test_modes_and_cells_keep_scalar_products(mesh, embedding):
    x, weights, bounds = MESHES[mesh]
    # 7 features make rows of 3 and 4 pieces: 12 nodes per row resolve both exactly.
    f = embed(RNG_FEATURES, x, weights, bounds, embedding=embedding)
    assert f.shape == (5, len(x))
    np.testing.assert_allclose((f * weights) @ f.T, RNG_FEATURES @ RNG_FEATURES.T, atol=1e-12)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("embedding", ["modes", "cells"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 13, 30, 64])
def test_every_number_of_features_is_kept(mesh, embedding, count):
    x, weights, bounds = MESHES[mesh]
    functions = embed(np.eye(count), x, weights, bounds, embedding=embedding)
    assert np.linalg.matrix_rank(functions) == count


def test_modes_on_an_interval_are_cosines():
    x, weights, bounds = interval(50)
    functions = embed(np.eye(3), x, weights, bounds, embedding="modes")
    angle = np.pi * (x[:, 0] + 1) / 3
    expected = np.sqrt([[1 / 3], [2 / 3], [2 / 3]]) * np.cos([0 * angle, angle, 2 * angle])
    np.testing.assert_allclose(functions, expected, atol=1e-12)


def test_modes_on_a_rectangle_come_in_the_order_of_their_wave_numbers():
    numbers = [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2), (3, 0)]
    assert mode_numbers(7, 2).tolist() == [list(n) for n in numbers]
    x, weights, bounds = MESHES["rectangle"]
    functions = embed(np.eye(7), x, weights, bounds, embedding="modes")
    xi = (x - bounds[0]) / (bounds[1] - bounds[0])
    for function, (j, k) in zip(functions, numbers, strict=True):
        wave = np.cos(j * np.pi * xi[:, 0]) * np.cos(k * np.pi * xi[:, 1])
        np.testing.assert_allclose(function * wave.max(), function.max() * wave, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3, 6, 10, 11, 64, 784])
def test_as_many_modes_as_asked_for_all_different(count):
    numbers = mode_numbers(count, 2)
    assert len(np.unique(numbers, axis=0)) == len(numbers) == count
    assert np.all(np.diff(numbers.sum(axis=1)) >= 0)


def test_modes_do_not_know_the_mesh():
    coarse, fine = interval(20), interval(60)
    # Every third node of the fine mesh, from the second on, is a node of the coarse one.
    on_coarse, on_fine = (embed(RNG_FEATURES, *mesh, embedding="modes") for mesh in (coarse, fine))
    np.testing.assert_allclose(on_fine[:, 1::3], on_coarse, atol=1e-12)


def test_cells_are_pieces_from_left_to_right():
    x, weights, bounds = interval(6, 0.0, 1.0)
    f = embed(np.array([[1.0, 2.0, 3.0]]), x, weights, bounds, embedding="cells")
    np.testing.assert_allclose(f[0], np.sqrt(3) * np.array([1, 1, 2, 2, 3, 3]))


def test_cells_of_a_rectangle_are_rows_of_pieces_from_the_bottom():
    x, weights, bounds = rectangle(6, 2, (0.0, 0.0), (1.0, 1.0))
    f = embed(np.array([[1.0, 2.0, 3.0, 4.0, 5.0]]), x, weights, bounds, embedding="cells")
    row = np.sqrt([[4.0], [6.0]]) * [[1, 1, 1, 2, 2, 2], [3, 3, 4, 4, 5, 5]]
    np.testing.assert_allclose(f[0].reshape(2, 6), row)


def test_a_node_between_two_pieces_takes_the_next():
    x, weights, bounds = interval(3, 0.0, 1.0)
    f = embed(np.array([[1.0, 2.0]]), x, weights, bounds, embedding="cells")
    np.testing.assert_allclose(f[0], np.sqrt(2) * np.array([1, 2, 2]))


@pytest.mark.parametrize("refinement", [1, 3])
def test_pictures_stand_upright(refinement):
    picture = np.arange(6.0).reshape(2, 3)  # two rows, three columns
    x, weights, bounds = rectangle(3 * refinement, 2 * refinement)
    f = embed(picture.reshape(1, 6), x, weights, bounds, embedding="pixels", image_shape=(2, 3))[0]

    def at(column, height):
        place = bounds[0] + (bounds[1] - bounds[0]) * [(column + 0.5) / 3, height]
        return f[np.argmin(np.linalg.norm(x - place, axis=1))]

    # The first row of the picture is on top, where x[1] is large.
    assert [at(c, 0.75) for c in range(3)] == [0, 1, 2]
    assert [at(c, 0.25) for c in range(3)] == [3, 4, 5]


def test_a_digit_is_drawn_as_it_is_printed():
    data = load("digits")
    x, weights, bounds = rectangle(16, 16, (0.0, 0.0), (1.0, 1.0))
    f = embed(data.features[:1], x, weights, bounds, embedding="pixels", image_shape=(8, 8))[0]
    printed = data.features[0].reshape(8, 8)
    np.testing.assert_array_equal(f.reshape(16, 16)[::-1][::2, ::2], printed)
    np.testing.assert_array_equal(f.reshape(16, 16)[::-1][1::2, 1::2], printed)
    assert f @ (weights * f) == pytest.approx(np.mean(printed**2))


@pytest.mark.parametrize(
    ("features", "mesh", "embedding", "shape", "held", "allowed"),
    [
        (9, interval(8), "modes", None, 8, "9 cells"),
        (9, interval(8), "cells", None, 8, "9 cells"),
        # Enough nodes, but too few of them in one direction.
        (6, rectangle(2, 20), "modes", None, 5, r"\[3, 3\] cells"),
        (9, rectangle(2, 20), "cells", None, 6, r"\[3, 3\] cells"),
        (64, rectangle(16, 4), "pixels", (8, 8), 32, r"\[8, 8\] cells"),
    ],
)
def test_a_mesh_that_would_lose_features_is_refused(
    features, mesh, embedding, shape, held, allowed
):
    text = f"hold only {held} of {features} features embedded as {embedding}; allowed: {allowed}"
    with pytest.raises(BadInput, match=text) as caught:
        embed(np.ones((1, features)), *mesh, embedding=embedding, image_shape=shape)
    assert caught.value.key == "mesh.width.cells"


@pytest.mark.parametrize(
    ("mesh", "embedding", "shape", "text"),
    [
        ("interval", "pixels", (2, 3), "Y is an interval; allowed: modes, cells"),
        ("rectangle", "pixels", None, "no picture; allowed: modes, cells"),
        ("interval", "splines", None, '"splines" is not an embedding; allowed: modes, cells'),
    ],
)
def test_embeddings_that_do_not_apply_are_refused(mesh, embedding, shape, text):
    with pytest.raises(BadInput, match=text) as caught:
        embed(np.ones((1, 6)), *MESHES[mesh], embedding=embedding, image_shape=shape)
    assert caught.value.key == "data.embedding"


def test_every_embedding_is_described():
    assert list(EMBEDDINGS) == ["modes", "cells", "pixels"]
    assert all(info.name == name and info.description for name, info in EMBEDDINGS.items())


def test_cosine_modes_say_which_mesh_resolves_them():
    x, _, bounds = MESHES["rectangle"]
    assert cosine_modes(10, x, bounds).cells == (4, 4)
