"""fem-dnn: variational finite elements for deep neural networks of infinite width and depth.

    import fem_dnn
    run = fem_dnn.solve("case.toml")
    print(run.solution.reason, run.solution.objective)

Names are imported when first used: reading a case needs neither dolfinx nor PETSc.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fem_dnn._version import __version__

if TYPE_CHECKING:
    from fem_dnn.activations import ACTIVATIONS, Activation
    from fem_dnn.assembly import Model, assemble
    from fem_dnn.case import Case, read_case
    from fem_dnn.commands import Run, forward, solve
    from fem_dnn.comparison import compare
    from fem_dnn.controllability import exact_controls, minimum_norm_controls
    from fem_dnn.controls import ControlSpace, ControlValues
    from fem_dnn.depth import SCHEMES, DepthLevels, DepthScheme
    from fem_dnn.errors import BadInput, FemDnnError
    from fem_dnn.feedback import feedback_control, run_loop
    from fem_dnn.losses import L2Loss, OutputLayer, OutputLoss
    from fem_dnn.mesh import DepthWidthMesh
    from fem_dnn.network import LayerWeights, Network
    from fem_dnn.network_transfer import transfer
    from fem_dnn.nonlocal_operator import NonlocalOperator
    from fem_dnn.prediction import predict
    from fem_dnn.problem import LearningProblem, Linearisation
    from fem_dnn.regularization import Regularization
    from fem_dnn.request import Request
    from fem_dnn.searching import critical
    from fem_dnn.solvers import (
        Solution,
        Tolerances,
        solve_all_at_once,
        solve_gradient,
        solve_layerwise,
        solve_lbfgs,
        solve_newton,
        solve_sweep,
    )
    from fem_dnn.state import solve_state
    from fem_dnn.tracking import Tracking
    from fem_dnn.valuing import value
    from fem_dnn.verification import verify
    from fem_dnn.width import WidthSpace

_WHERE = {
    "activations": ("ACTIVATIONS", "Activation"),
    "assembly": ("Model", "assemble"),
    "case": ("Case", "read_case"),
    "comparison": ("compare",),
    "commands": ("Run", "forward", "solve"),
    "controllability": ("exact_controls", "minimum_norm_controls"),
    "controls": ("ControlSpace", "ControlValues"),
    "depth": ("SCHEMES", "DepthLevels", "DepthScheme"),
    "errors": ("BadInput", "FemDnnError"),
    "feedback": ("feedback_control", "run_loop"),
    "losses": ("L2Loss", "OutputLayer", "OutputLoss"),
    "mesh": ("DepthWidthMesh",),
    "network_transfer": ("transfer",),
    "nonlocal_operator": ("NonlocalOperator",),
    "prediction": ("predict",),
    "problem": ("LearningProblem", "Linearisation"),
    "tracking": ("Tracking",),
    "request": ("Request",),
    "regularization": ("Regularization",),
    "searching": ("critical",),
    "solvers": (
        "Solution",
        "Tolerances",
        "solve_all_at_once",
        "solve_gradient",
        "solve_layerwise",
        "solve_lbfgs",
        "solve_newton",
        "solve_sweep",
    ),
    "network": ("LayerWeights", "Network"),
    "state": ("solve_state",),
    "valuing": ("value",),
    "verification": ("verify",),
    "width": ("WidthSpace",),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "ACTIVATIONS",
    "SCHEMES",
    "Activation",
    "BadInput",
    "Case",
    "ControlSpace",
    "ControlValues",
    "DepthLevels",
    "DepthScheme",
    "DepthWidthMesh",
    "FemDnnError",
    "L2Loss",
    "LayerWeights",
    "LearningProblem",
    "Linearisation",
    "Model",
    "Network",
    "NonlocalOperator",
    "OutputLayer",
    "OutputLoss",
    "Regularization",
    "Request",
    "Run",
    "Solution",
    "Tolerances",
    "Tracking",
    "WidthSpace",
    "__version__",
    "assemble",
    "compare",
    "critical",
    "exact_controls",
    "feedback_control",
    "forward",
    "minimum_norm_controls",
    "predict",
    "read_case",
    "run_loop",
    "solve",
    "solve_all_at_once",
    "solve_gradient",
    "solve_layerwise",
    "solve_lbfgs",
    "solve_newton",
    "solve_state",
    "solve_sweep",
    "transfer",
    "value",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fem_dnn' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fem_dnn.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
