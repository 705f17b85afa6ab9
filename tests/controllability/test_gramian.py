"""The linearised end-point map and its Gramian (theory.md section 6)."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import random_control, random_problem, relative
from mpi4py import MPI

from fem_dnn import pictures
from fem_dnn.controllability import EndPointMap, gramian, gramian_spectrum

KINDS = {
    "l2": {},
    "bias": {"kernel": False},
    "mse": {"loss": "mse", "cells": (2, 2)},
    "mask": {"loss": "softmax", "outputs": 3, "mask": True},
    "learned": {"loss": "mse", "learn_outputs": True},
}


def case(comm, kind, scheme="dg1", **more):
    problem = random_problem(comm, scheme=scheme, **KINDS[kind], **more)
    return problem.linearise(random_control(problem, scale=0.4))


def columns(at):
    """G by sweeps, column by column, in file order: needs one rank."""
    ends = EndPointMap(at)
    shape = (-1, ends.samples) if ends.layer is None else (ends.outputs, ends.samples)
    products = []
    for s in range(ends.samples):
        for k in range(ends.outputs):
            v = np.zeros((ends.outputs, ends.samples))
            v[ends.space.file_order[k] if ends.layer is None else k, s] = 1.0
            w = ends.apply(ends.transpose(v.ravel())).reshape(shape)
            products.append((w[ends.space.file_order] if ends.layer is None else w).T.ravel())
    return np.array(products)


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("kind", "scheme"), zip(KINDS, ["resnet", "dg0", "dg1", "dg2", "resnet"], strict=True)
)
def test_adjoint(kind, scheme):
    """<L c, v> = <c, L' v>."""
    at = case(MPI.COMM_WORLD, kind, scheme)
    ends, controls = EndPointMap(at), at.problem.controls
    c = controls.random_direction(1)
    v = np.random.default_rng(MPI.COMM_WORLD.rank).standard_normal(ends.n_local)
    left = float(controls.space.sum(ends.apply(c) @ v))
    assert left == pytest.approx(controls.dot(c, ends.transpose(v)), rel=1e-11)


@pytest.mark.mpi
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_gradient_is_the_transpose_of_the_residual(kind):
    at = case(MPI.COMM_WORLD, kind)
    ends = EndPointMap(at)
    loss_gradient = at.gradient - at.problem.regularization.action(at.control)
    difference = loss_gradient - ends.transpose(ends.residual)
    controls = at.problem.controls
    assert controls.norm(difference) < 1e-12 * controls.norm(loss_gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_derivative_of_the_outputs(kind):
    """Central differences, of second order."""
    at = case(MPI.COMM_SELF, kind)
    ends, direction = EndPointMap(at), at.problem.controls.random_direction(2)
    eps = 1e-4

    def outputs(step):
        there = at.problem.linearise(at.control + step * direction)
        if ends.layer is None:
            h = at.problem.network.space.sqrt_weights[:, None]
            return (there.state.ends[-1] * h * ends.root).ravel()
        return (there.loss_point.outputs * ends.root).ravel()

    quotient = (outputs(eps) - outputs(-eps)) / (2 * eps)
    assert relative(quotient, ends.apply(direction)) < 1e-7


@pytest.mark.parametrize("kind", KINDS)
def test_the_gramian_is_the_product(kind):
    """One sweep per output function for all samples gives what two sweeps per column give."""
    at = case(MPI.COMM_SELF, kind)
    assert relative(gramian(at), columns(at)) < 1e-12


@pytest.mark.mpi
@pytest.mark.parametrize("kind", ["l2", "mask"])
def test_both_ends_by_slepc(kind):
    """Sweeps and SLEPc on any ranks, against the whole Gramian on one."""
    whole = gramian_spectrum(case(MPI.COMM_SELF, kind))
    ends = gramian_spectrum(case(MPI.COMM_WORLD, kind), dense=0)
    assert whole.complete
    assert not ends.complete
    assert ends.largest == pytest.approx(whole.largest, rel=1e-6)
    assert ends.lowest == pytest.approx(whole.lowest, abs=2e-6 * whole.largest)
    assert ends.residual < 1e-5 * whole.largest
    shared = gramian_spectrum(case(MPI.COMM_WORLD, kind))
    assert np.allclose(shared.eigenvalues, whole.eigenvalues, rtol=0, atol=1e-12 * whole.largest)


def test_equal_samples_make_unreachable_directions():
    """The unreachable directions are the differences of the two samples, at every node."""
    at = case(MPI.COMM_SELF, "l2", "resnet")
    problem = replace(at.problem, sample_weights=np.array([0.2, 0.3, 0.2]))
    problem.inputs[:, 2] = problem.inputs[:, 0]
    spectrum = gramian_spectrum(problem.linearise(at.control))
    assert spectrum.unreachable == problem.network.space.n_nodes
    v = spectrum.directions
    assert np.allclose(v[:, 0] + v[:, 2], 0, atol=1e-7)
    assert np.allclose(v[:, 1], 0, atol=1e-7)


def test_fewer_controls_than_outputs():
    at = case(MPI.COMM_SELF, "bias", "resnet", points=[0.0, 1.0], samples=3)
    spectrum = gramian_spectrum(at)
    assert spectrum.rank_bound == 4
    assert spectrum.unreachable == 8
    assert spectrum.lowest == 0 == spectrum.ratio


def test_bias_only_one_sample_has_a_closed_form():
    """b constant, f(T) = f_I + T sigma(b): L b = int sigma' db, G = T sigma'(b)^2 at every node."""
    problem = random_problem(MPI.COMM_SELF, kernel=False, samples=1, cells=3)
    problem = replace(problem, sample_weights=np.ones(1))
    spectrum = gramian_spectrum(problem.linearise(problem.controls.constant(bias=0.8)))
    expected = 1.1 / np.cosh(0.8) ** 4
    assert np.allclose(spectrum.eigenvalues, expected, rtol=1e-12)


@pytest.mark.parametrize("directions", [True, False])
def test_picture(directions, tmp_path):
    """Of a whole spectrum, and of one of whose lower end nothing is known."""
    spectrum = gramian_spectrum(case(MPI.COMM_SELF, "mse"))
    if not directions:
        spectrum = replace(
            spectrum, eigenvalues=spectrum.eigenvalues[-1:], directions=np.zeros((0, 0, 0))
        )
    path = pictures.save(pictures.gramian_spectrum(spectrum), tmp_path / "gramian.png")
    assert path.stat().st_size > 10_000
    with pytest.raises(ValueError, match="no positive eigenvalue"):
        pictures.gramian_spectrum(replace(spectrum, eigenvalues=np.zeros(1)))
