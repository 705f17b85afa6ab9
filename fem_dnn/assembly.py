"""From a case to the learning problem: the one place where all parts meet.

case -> DepthWidthMesh -> WidthSpace, DepthLevels -> Network
     -> Ingredients (arrays)            -> LearningProblem -> Model
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import dolfinx
import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn import mesh as meshes
from fem_dnn.activations import ACTIVATIONS, Activation
from fem_dnn.case import Case
from fem_dnn.case.commands import Initial
from fem_dnn.case.domain import Interval, WidthFile
from fem_dnn.collective import on_root
from fem_dnn.controls import ControlSpace, ControlValues, local_mask
from fem_dnn.datasets import Scaling
from fem_dnn.depth import SCHEMES, DepthLevels
from fem_dnn.derivative_forms import InconsistentFlux
from fem_dnn.errors import BadInput
from fem_dnn.ingredients import Ingredients, Places, Samples, read_ingredients
from fem_dnn.losses import POINTWISE, L2Loss, OutputLayer, OutputLoss, TerminalLoss
from fem_dnn.mesh import DepthWidthMesh, MeshArrays
from fem_dnn.mesh_files import read_width_mesh
from fem_dnn.network import LayerWeights, Network
from fem_dnn.nonlocal_operator import NonlocalOperator, kernel_coefficients
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.regularization import Regularization
from fem_dnn.sample_groups import SampleGroups
from fem_dnn.state import solve_state
from fem_dnn.tracking import Tracking
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]


OVERFLOW = (
    "the state is not finite at the end of the depth: the kernel is too large for these steps; use "
    "more layers (mesh.depth.cells) or a smaller kernel"
)
"""What to say of a state equation that has blown up."""


WidthMesh: TypeAlias = dolfinx.mesh.Mesh | MeshArrays
"""A width mesh made in Python, to be used instead of the case's own."""


def make_mesh(case: Case, comm: MPI.Comm, given: WidthMesh | None = None) -> DepthWidthMesh:
    """The depth-width mesh of a case (collective).

    Args:
        case: The case.
        comm: Communicator over which the width is distributed.
        given: Width mesh to use instead of the case's; a dolfinx mesh stays distributed as it is.

    Raises:
        BadInput: A mesh file cannot be used, or the mesh given does not suit the case or `comm`.
    """
    width, depth = case.mesh.width, np.array(case.mesh.depth.slab_ends)
    if given is not None:
        return DepthWidthMesh(_given_width(case, comm, given), depth)
    if isinstance(width, WidthFile):
        domain = _width_of_file(case, width, comm)
    elif isinstance(width, Interval):
        domain = meshes.interval(comm, width.cells, start=width.start, length=width.length)
    else:
        domain = meshes.rectangle(comm, width.cells, start=width.start, length=width.length)
    return DepthWidthMesh(domain, depth)


def _width_of_file(case: Case, width: WidthFile, comm: MPI.Comm) -> dolfinx.mesh.Mesh:
    def read() -> MeshArrays:
        try:
            return read_width_mesh(case.folder / width.file)
        except BadInput as problem:
            raise problem.at(file=case.file, key="mesh.width.file") from None

    return on_root(comm, read).mesh(comm)


def _given_width(case: Case, comm: MPI.Comm, given: WidthMesh) -> dolfinx.mesh.Mesh:
    mesh = given.mesh(comm) if isinstance(given, MeshArrays) else given
    if mesh.comm.size != comm.size:
        raise case.error(
            "mesh.width",
            f"handed over is distributed over {mesh.comm.size} ranks, the case over {comm.size}",
            "a mesh on the communicator of the request",
        )
    wanted, dimension = case.mesh.width.dimension, mesh.geometry.dim
    if mesh.topology.dim != dimension:
        raise case.error(
            "mesh.width",
            f"handed over is of dimension {mesh.topology.dim} in {dimension} coordinates",
            "a mesh with as many coordinates as its dimension",
        )
    if wanted not in (None, dimension):
        raise case.error(
            "mesh.width",
            f"handed over has {dimension} coordinates, the case is written for {wanted}",
            "as many coordinates as the case's own width",
        )
    return mesh


@dataclass(frozen=True, eq=False)
class Discretisation:
    """Meshes and spaces of a case.

    Attributes:
        mesh: Depth-width mesh.
        space: Width space.
        levels: Depth levels.
    """

    mesh: DepthWidthMesh
    space: WidthSpace
    levels: DepthLevels

    @classmethod
    def of(cls, case: Case, comm: MPI.Comm, width: WidthMesh | None = None) -> Discretisation:
        """The discretisation that a case asks for, on another width mesh where one is given.

        Raises:
            BadInput: The width mesh cannot be used, or has fewer cells than there are ranks.
        """
        mesh = make_mesh(case, comm, width)
        index_map = mesh.width.topology.index_map(mesh.width.topology.dim)
        if index_map.size_global < comm.size:
            named = "file" if isinstance(case.mesh.width, WidthFile) else "cells"
            raise case.error(
                "mesh.width" if width is not None else f"mesh.width.{named}",
                f"has {index_map.size_global} cells for {comm.size} ranks",
                "a cell per rank or more",
            )
        try:
            space = WidthSpace(mesh.width, case.network.width_degree)
            space.require_positive_weights()
        except BadInput as problem:
            raise problem.at(file=case.file) from None
        return cls(mesh, space, DepthLevels(SCHEMES[case.network.depth_scheme], mesh.depth_points))

    @cached_property
    def places(self) -> Places:
        """Where functions are evaluated (collective)."""
        space = self.space
        return Places(space.nodes, space.node_weights, space.bounds, self.levels)


@dataclass(frozen=True, eq=False)
class Model:
    """A case made ready: discretisation, arrays, learning problem.

    Attributes:
        case: The case.
        discretisation: Meshes and spaces.
        ingredients: Arrays in file order.
        problem: Learning problem on the training samples; None where the case has no targets.
        network: Width space, depth levels, activation.
        given: Kernel and bias that are given, not trained.
    """

    case: Case
    discretisation: Discretisation
    ingredients: Ingredients
    network: Network
    given: LayerWeights
    problem: LearningProblem | None

    @property
    def comm(self) -> MPI.Comm:
        """Communicator."""
        return self.network.space.comm

    @cached_property
    def initial(self) -> Array:
        """The case's initial guess, local vector in L2-orthonormal coordinates."""
        return self.guess(self.case.initial)

    def guess(self, guess: Initial) -> Array:
        """The control that an initial guess describes, local vector; its file is the case's own."""
        assert self.problem is not None
        controls = self.problem.controls
        if guess.kind == "random":
            start = controls.random(guess.seed, guess.scale)
        elif guess.kind == "constant":
            start = controls.constant(guess.kernel, guess.bias)
        elif guess.kind == "file":
            assert self.ingredients.initial is not None
            start = self.problem.control_of(self.ingredients.initial)
        else:
            start = np.zeros(controls.n_local)
        if controls.outputs and guess.kind != "file":
            values = ControlValues(
                outputs=self.ingredients.outputs, offsets=self.ingredients.offsets
            )
            start = start + controls.coordinates(values)
        return start

    def overflows(self, terminal: Array) -> bool:
        """Whether terminal states, shape (n_local, samples), are not finite on some rank."""
        return bool(self.network.space.sum(np.array(not np.all(np.isfinite(terminal)), dtype=int)))

    def terminal_state(self, at: Linearisation, samples: Samples) -> Array:
        """f(T) for other samples with the weights of a linearisation, shape (n_local, samples)."""
        inputs = local_samples(self.network.space, samples.inputs)
        return solve_state(self.network, at.weights, inputs).ends[-1]

    def outputs_of(self, terminal: Array, layer: OutputLayer) -> Array:
        """z_k = int_Y W_k f(T) dx + m_k, shape (samples, K) (collective)."""
        space = self.network.space
        z = space.sum((layer.functions * space.local_weights) @ terminal)
        return z.T + layer.offsets

    def accuracy(self, outputs: Array, samples: Samples) -> float | None:
        """Fraction of samples classified right; None where the loss does not classify."""
        if not self.classifies or samples.targets is None:
            return None
        return float(np.mean(predicted_labels(self.case, outputs) == samples.targets))

    @property
    def classifies(self) -> bool:
        """Whether the loss is that of a classification."""
        return self.case.loss.kind in ("logistic", "softmax")

    def train_accuracy(self, at: Linearisation) -> float | None:
        """Accuracy on the training samples at a linearisation."""
        outputs = at.loss_point.outputs
        return None if outputs is None else self.accuracy(outputs.T, self.ingredients.train)

    def test_accuracy(self, at: Linearisation) -> float | None:
        """Accuracy on the test samples, where there are any."""
        test = self.ingredients.test
        if test is None or not self.classifies or at.output_layer is None:
            return None
        return self.accuracy(self.outputs_of(self.terminal_state(at, test), at.output_layer), test)


def predicted_labels(case: Case, outputs: Array) -> Array:
    """Labels from outputs (samples, K): +1/-1 for logistic, class numbers for softmax."""
    if case.loss.kind == "logistic":
        return np.where(outputs[:, 0] >= 0, 1.0, -1.0)
    return np.argmax(outputs, axis=1).astype(np.float64)


def local_samples(space: WidthSpace, functions: Array) -> Array:
    """This rank's nodes of functions in file order: (samples, nodes) -> (n_local, samples)."""
    return np.ascontiguousarray(space.from_file_order(functions, axis=-1).T)


def assemble(
    case: Case,
    comm: MPI.Comm = MPI.COMM_WORLD,
    *,
    activation: Activation | None = None,
    scaling: Scaling | None = None,
    width: WidthMesh | None = None,
) -> Model:
    """Make a case ready to be solved (collective).

    Args:
        case: The case.
        comm: Communicator over which the width is distributed.
        activation: A user's own activation instead of the case's.
        scaling: Feature scaling learned earlier; None: from this case's training samples.
        width: A width mesh made in Python (dolfinx's own, or arrays) instead of the case's.

    Raises:
        BadInput: The data or the mesh do not fit the case; the same on all ranks.
    """
    discretisation = Discretisation.of(case, comm, width)
    places = discretisation.places
    ingredients = on_root(comm, lambda: read_ingredients(case, places, scaling))
    return model_of(case, discretisation, ingredients, activation)


def model_of(
    case: Case,
    discretisation: Discretisation,
    ingredients: Ingredients,
    activation: Activation | None = None,
) -> Model:
    """A case with its arrays at hand, made ready to be solved (collective)."""
    network = Network(
        discretisation.space,
        discretisation.levels,
        activation or ACTIVATIONS[case.network.activation],
    )
    given = given_weights(network, ingredients)
    problem = learning_problem(case, network, given, ingredients)
    return Model(case, discretisation, ingredients, network, given, problem)


def given_weights(network: Network, ingredients: Ingredients) -> LayerWeights:
    """Kernel and bias that are given, not trained (collective)."""
    space, levels = network.space, network.levels
    operator = bias = None
    if ingredients.kernel is not None:
        coefficients = kernel_coefficients(space, levels.weights, ingredients.kernel)
        if ingredients.mask is not None:
            coefficients = coefficients * local_mask(space, ingredients.mask)
        operator = NonlocalOperator(space, levels.weights, coefficients)
    if ingredients.bias is not None:
        bias = np.ascontiguousarray(space.from_file_order(ingredients.bias))[:, :, None]
    return LayerWeights(operator, bias)


def learning_problem(
    case: Case,
    network: Network,
    given: LayerWeights,
    ingredients: Ingredients,
    groups: SampleGroups | None = None,
) -> LearningProblem | None:
    """A case's learning problem on a network, with its ingredients' samples (collective).

    None where there are no targets.
    """
    targets = ingredients.train.targets
    if targets is None:
        return None
    space, weights = network.space, ingredients.weights
    train_outputs = case.loss.train_outputs
    controls = ControlSpace(
        space,
        network.levels,
        kernel=case.network.kernel is True,
        bias=case.network.bias is True,
        outputs=len(ingredients.outputs)
        if train_outputs and ingredients.outputs is not None
        else 0,
        mask=ingredients.mask,
        bounds={name: pair for name, pair in case.bounds if pair is not None},
        groups=groups,
    )
    layer = None
    loss: TerminalLoss
    if ingredients.outputs is None or ingredients.offsets is None:
        loss = L2Loss(space, local_samples(space, targets), case.loss.weight)
    else:
        layer = OutputLayer(space.from_file_order(ingredients.outputs), ingredients.offsets)
        columns = {
            "mse": lambda: targets.T,
            "logistic": lambda: targets[None],
            "softmax": lambda: np.eye(len(layer.offsets))[:, targets.astype(int)],
        }[case.loss.kind]()
        loss = OutputLoss(space, POINTWISE[case.loss.kind], columns, weights, case.loss.weight)
    tracking = None
    if ingredients.tracking is not None:
        local = space.from_file_order(ingredients.tracking).transpose(0, 2, 1)
        tracking = Tracking(case.loss.tracking, np.ascontiguousarray(local))
    return LearningProblem(
        network,
        controls,
        local_samples(space, ingredients.train.inputs),
        weights,
        loss,
        _regularization(case, controls, given),
        tracking,
        given,
        None if train_outputs else layer,
    )


def _regularization(case: Case, controls: ControlSpace, given: LayerWeights) -> Regularization:
    """R, also of what is given: J is the same number whether a control was found or handed in."""
    weights = case.regularization
    terms = {
        "kernel_depth": weights.kernel_depth,
        "kernel_width": weights.kernel_width,
        "bias_depth": weights.bias_depth,
        "bias_width": weights.bias_width,
    }
    everything = Regularization(controls, weights.kernel, weights.bias, weights.outputs, **terms)
    for key in ("kernel_width", "bias_width"):
        if terms[key]:
            try:
                everything.forms.width  # noqa: B018 (made here, where a refusal has a key)
            except InconsistentFlux as problem:
                raise case.error(
                    f"regularization.{key}", str(problem), "0.0, or network.width_degree >= 1"
                ) from None
    constant = 0.0
    if given.operator is not None:
        constant += everything.energy("kernel", given.operator.coefficients)
    if given.bias is not None:
        constant += everything.energy("bias", given.bias[:, :, 0] * controls.bias_scale)
    return replace(everything, given=constant)
