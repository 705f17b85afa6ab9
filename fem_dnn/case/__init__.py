"""Case files: their schema, how they are read, and the arrays and functions they name.

Importing this is quick: neither dolfinx nor PETSc is needed to check a case.
"""

from fem_dnn.case.arrays import field_array, functions_array, is_array, load_array
from fem_dnn.case.reading import read_case, read_case_collectively
from fem_dnn.case.relations import (
    require_dense,
    require_given_controls,
    require_learning_problem,
    require_one_group,
    require_unbounded,
    require_value_problem,
)
from fem_dnn.case.schema import Case
from fem_dnn.case.templates import template

__all__ = [
    "Case",
    "field_array",
    "functions_array",
    "is_array",
    "load_array",
    "read_case",
    "read_case_collectively",
    "require_dense",
    "require_given_controls",
    "require_learning_problem",
    "require_one_group",
    "require_unbounded",
    "require_value_problem",
    "template",
]
