"""Data sets: what is in them, that the same arguments give the same arrays, splits, scaling."""

import subprocess
import sys

import numpy as np
import pytest

from fem_dnn.case import Case
from fem_dnn.datasets import DATASETS, LOSSES, Scaling, default_outputs, embed, load, prepare
from fem_dnn.errors import BadInput

MADE = [name for name, info in DATASETS.items() if info.generator]
MEASURED = [name for name, info in DATASETS.items() if not info.generator]
CLASSIFIED = [name for name, info in DATASETS.items() if info.classifies]


def arrays(data):
    return data.features, data.targets, data.features_test, data.targets_test


def test_names_are_read_without_scikit_learn():
    program = "import sys, fem_dnn.datasets; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("name", DATASETS)
def test_contents_are_as_the_catalogue_says(name):
    info, data = DATASETS[name], load(name)
    assert data.features.shape == (info.samples, info.features)
    assert len(data.feature_names) == info.features
    assert len(data.features_test) == len(data.targets_test) == 0
    assert np.isfinite(data.features).all()
    if info.classifies:
        assert sorted(set(data.targets)) == list(range(info.outputs))
        assert len(data.class_names) == info.outputs
    else:
        assert data.targets.shape == (info.samples, info.outputs)
        assert data.class_names == ()
    if info.image_shape:
        assert np.prod(info.image_shape) == info.features


@pytest.mark.parametrize("name", DATASETS)
def test_the_same_arguments_give_the_same_arrays_and_another_seed_others(name):
    settings = {"samples": 60, "test_fraction": 0.25}
    first, again, other = (load(name, seed=seed, **settings) for seed in (7, 7, 8))
    for a, b in zip(arrays(first), arrays(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.features, other.features)


@pytest.mark.parametrize("name", DATASETS)
def test_a_split_keeps_every_sample_once(name):
    whole, split = load(name, samples=61), load(name, samples=61, test_fraction=0.25)
    assert len(split.features_test) == 16  # rounded up
    parts = np.concatenate([split.features, split.features_test])
    np.testing.assert_array_equal(np.unique(parts, axis=0), np.unique(whole.features, axis=0))
    assert len(parts) == 61


@pytest.mark.parametrize("name", CLASSIFIED)
def test_choice_and_split_keep_the_classes_in_proportion(name):
    info = DATASETS[name]
    share = np.bincount(load(name, samples=100).targets) / 100
    if info.generator is None:
        expected = np.bincount(load(name).targets) / info.samples
        np.testing.assert_allclose(share, expected, atol=1 / 100)
    data = load(name, samples=100, test_fraction=0.3)
    for targets in (data.targets, data.targets_test):
        np.testing.assert_allclose(
            np.bincount(targets) / len(targets), share, atol=1.01 / len(targets)
        )


@pytest.mark.parametrize("name", ["circles", "moons", "spiral", "donut"])
@pytest.mark.parametrize("samples", [1, 2, 101])
def test_made_classes_differ_by_one_sample_at_most(name, samples):
    first, second = np.bincount(load(name, samples=samples).targets, minlength=2)
    assert first + second == samples
    assert abs(first - second) <= 1


def test_shapes_in_the_plane_without_noise():
    radius = {
        name: np.linalg.norm(load(name, noise=0).features, axis=1) for name in ("circles", "spiral")
    }
    inner = load("circles", noise=0).targets == 1
    np.testing.assert_allclose(radius["circles"], np.where(inner, 0.5, 1.0))

    # Turned by half a turn, one arm of the spiral is the other.
    assert radius["spiral"].min() == pytest.approx(0.1)
    assert radius["spiral"].max() == pytest.approx(1.0)
    spiral = load("spiral", noise=0)
    arms = [spiral.features[spiral.targets == label] for label in (0, 1)]
    arms = [arm[np.argsort(np.linalg.norm(arm, axis=1))] for arm in arms]
    np.testing.assert_allclose(arms[1], -arms[0], atol=1e-12)

    donut = load("donut", samples=2000, noise=0)
    distance = np.linalg.norm(donut.features, axis=1)
    assert distance[donut.targets == 0].mean() == pytest.approx(0.5, abs=0.02)
    assert distance[donut.targets == 1].mean() == pytest.approx(0.1 * np.sqrt(np.pi / 2), abs=0.01)

    squares = load("squares", noise=0)
    np.testing.assert_array_equal(np.prod(squares.features, axis=1) > 0, squares.targets == 1)
    assert np.abs(squares.features).max() < 0.7

    sine = load("sine", noise=0)
    np.testing.assert_allclose(sine.targets, np.sin(2 * np.pi * sine.features))

    rotation = load("rotation", noise=0)
    quarter = np.array([[0, -1], [1, 0]])
    np.testing.assert_allclose(rotation.targets, rotation.features @ quarter.T)


@pytest.mark.parametrize("name", MADE)
def test_noise_has_the_standard_deviation_asked_for(name):
    noisy, exact = (load(name, samples=2000, noise=noise, seed=3) for noise in (0.2, 0.0))
    if name in ("circles", "moons"):  # scikit-learn shuffles after drawing: compare distances
        assert noisy.features.var(axis=0).sum() == pytest.approx(
            exact.features.var(axis=0).sum() + 2 * 0.2**2, rel=0.1
        )
        return
    if DATASETS[name].classifies:
        difference = noisy.features - exact.features
    else:
        difference = noisy.targets - exact.targets
        np.testing.assert_array_equal(noisy.features, exact.features)
    assert difference.std() == pytest.approx(0.2, rel=0.1)
    assert abs(difference.mean()) < 0.02


def test_targets_take_the_form_of_the_loss():
    circles = load("circles", samples=20, test_fraction=0.2)
    signs, signs_test = circles.targets_for("logistic")
    np.testing.assert_array_equal(signs, np.where(circles.targets == 1, 1.0, -1.0))
    assert signs_test.shape == (4,)
    np.testing.assert_array_equal(circles.targets_for("mse")[0], signs[:, None])
    np.testing.assert_array_equal(circles.targets_for("softmax")[0], circles.targets)

    digits = load("digits", samples=30)
    assert digits.targets_for("softmax")[0].dtype == np.float64
    indicators = digits.targets_for("mse")[0]
    assert indicators.shape == (30, 10)
    np.testing.assert_array_equal(indicators.argmax(axis=1), digits.targets)
    np.testing.assert_array_equal(indicators.sum(axis=1), 1)

    assert load("sine", samples=5).targets_for("mse")[0].shape == (5, 1)
    assert load("rotation", samples=5).targets_for("l2")[0].shape == (5, 2)


def test_diabetes_targets_are_of_order_one():
    targets = load("diabetes").targets
    assert abs(targets.mean()) < 0.01
    assert targets.std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", DATASETS)
def test_losses_that_do_not_fit_are_refused(name):
    data = load(name, samples=40)
    fitting = LOSSES[DATASETS[name].task]
    for kind in {"l2", "mse", "logistic", "softmax"} - set(fitting):
        with pytest.raises(BadInput, match=f'"{kind}" does not fit {name}') as caught:
            data.targets_for(kind)
        assert caught.value.key == "loss.kind"
        assert caught.value.allowed == ", ".join(fitting)
    assert DATASETS[name].loss in fitting


@pytest.mark.parametrize(
    ("key", "text", "settings"),
    [
        ("data.dataset", '"digit" is not a data set', {"name": "digit"}),
        ("data.samples", "1798 is more than digits has", {"name": "digits", "samples": 1798}),
        ("data.noise", "does not apply to iris", {"name": "iris", "noise": 0.1}),
        ("data.test_fraction", "2 for testing", {"name": "iris", "test_fraction": 0.01}),
        (
            "data.test_fraction",
            "1 for training",
            {"name": "circles", "samples": 10, "test_fraction": 0.9},
        ),
        (
            "data.test_fraction",
            "0 for training",
            {"name": "sine", "samples": 1, "test_fraction": 0.2},
        ),
    ],
)
def test_what_a_data_set_does_not_have_is_refused(key, text, settings):
    with pytest.raises(BadInput, match=text) as caught:
        load(**settings)
    assert caught.value.key == key
    assert caught.value.allowed


def test_all_but_one_sample_can_be_chosen():
    assert len(load("digits", samples=1796).features) == 1796


def test_standard_scaling_and_back_from_arrays(tmp_path):
    data = load("wine", test_fraction=0.3)
    scaling = Scaling.standard(data.features)
    scaled = scaling(data.features)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled.std(axis=0), 1)
    # Test samples are scaled with the training samples' statistics.
    np.testing.assert_allclose(
        scaling(data.features_test),
        (data.features_test - data.features.mean(axis=0)) / data.features.std(axis=0),
    )
    np.savez(tmp_path / "kept.npz", **scaling.to_arrays())
    with np.load(tmp_path / "kept.npz") as kept:
        np.testing.assert_array_equal(Scaling.from_arrays(kept)(data.features), scaled)


def test_constant_features_stay_untouched_and_pictures_are_scaled_as_a_whole():
    features = np.array([[0.1, 1.0], [0.1, 3.0], [0.1, 5.0]])
    np.testing.assert_array_equal(Scaling.standard(features)(features)[:, 0], 0.1)

    digits = load("digits").features
    scaled = Scaling.standard(digits, pooled=True)(digits)
    assert scaled.mean() == pytest.approx(0, abs=1e-12)
    assert scaled.std() == pytest.approx(1)
    assert np.ptp(scaled[digits == 0]) == 0  # the paper stays one colour


# From a case to functions.

X = (np.arange(32) + 0.5)[:, None] / 32
WEIGHTS = np.full(32, 1 / 32)
BOUNDS = np.zeros(1), np.ones(1)


def case(loss="logistic", **data):
    return Case.parse(
        {
            "mesh": {
                "width": {"shape": "interval", "length": 1.0, "cells": 32},
                "depth": {"length": 1.0, "cells": 2},
            },
            "data": data,
            "loss": {"kind": loss},
        },
        "case.toml",
    )


def test_prepare_embeds_scaled_features():
    made = prepare(case(dataset="moons", samples=50, seed=4), X, WEIGHTS, BOUNDS)
    data = load("moons", samples=50, seed=4, test_fraction=0.2)
    scaling = Scaling.standard(data.features)
    np.testing.assert_array_equal(
        made.train, embed(scaling(data.features), X, WEIGHTS, BOUNDS, embedding="modes")
    )
    np.testing.assert_array_equal(
        made.test, embed(scaling(data.features_test), X, WEIGHTS, BOUNDS, embedding="modes")
    )
    np.testing.assert_array_equal(made.train_targets, data.targets_for("logistic")[0])
    np.testing.assert_array_equal(made.test_targets, data.targets_for("logistic")[1])


def test_prepare_without_scaling_and_without_test():
    wanted = case(dataset="moons", scaling="none", embedding="cells", test_fraction=0.0)
    made = prepare(wanted, X, WEIGHTS, BOUNDS)
    np.testing.assert_array_equal(
        made.train, embed(load("moons").features, X, WEIGHTS, BOUNDS, embedding="cells")
    )
    assert made.test is None
    assert made.test_targets is None


def test_prepare_uses_the_scaling_of_a_trained_network():
    trained = Scaling(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    wanted = case(dataset="moons", samples=10)
    made = prepare(wanted, X, WEIGHTS, BOUNDS, trained)
    np.testing.assert_array_equal(
        made.train, embed(trained(made.dataset.features), X, WEIGHTS, BOUNDS)
    )
    assert made.scaling is trained
    with pytest.raises(BadInput, match=r"case.toml: data.dataset: .* 4 features.*2, as trained"):
        prepare(case("softmax", dataset="iris"), X, WEIGHTS, BOUNDS, trained)


def test_transport_targets_are_embedded_like_inputs():
    made = prepare(case("l2", dataset="rotation", scaling="none"), X, WEIGHTS, BOUNDS)
    first, second = np.ones(32), np.sqrt(2) * np.cos(np.pi * X[:, 0])
    goal = made.dataset.targets
    np.testing.assert_allclose(
        made.train_targets, np.outer(goal[:, 0], first) + np.outer(goal[:, 1], second)
    )
    assert made.test_targets.shape == made.test.shape


def test_errors_name_the_case_file():
    with pytest.raises(BadInput, match=r"case.toml: loss.kind: "):
        prepare(case("l2", dataset="digits"), X, WEIGHTS, BOUNDS)
    with pytest.raises(BadInput, match=r"case.toml: data.embedding: .*interval"):
        prepare(case("softmax", dataset="digits"), X, WEIGHTS, BOUNDS)


@pytest.mark.parametrize("count", [1, 2, 10, 32])
@pytest.mark.parametrize(("classifies", "norm"), [(False, 1), (True, 10)])
def test_default_outputs_are_orthogonal_and_of_one_norm(count, classifies, norm):
    outputs = default_outputs(count, X, WEIGHTS, BOUNDS, classifies=classifies)
    gram = (outputs * WEIGHTS) @ outputs.T
    np.testing.assert_allclose(gram, norm**2 * np.eye(count), atol=1e-10)


def test_more_outputs_than_nodes_are_refused():
    with pytest.raises(BadInput, match=r"32 width nodes hold only 32 of 33 .*33 cells") as caught:
        default_outputs(33, X, WEIGHTS, BOUNDS)
    assert caught.value.key == "mesh.width.cells"
