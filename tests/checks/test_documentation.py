"""docs/statements.md names every check, and no other."""

import re
from pathlib import Path

import numpy as np
from helpers import make_network, random_weights, width_space
from mpi4py import MPI

from fem_dnn.checks import Subject, all_checks
from fem_dnn.existence.oscillation_check import existence_oscillation
from fem_dnn.state import solve_state

PAGE = Path(__file__).resolve().parents[2] / "docs" / "statements.md"


def test_the_page_lists_the_checks():
    network = make_network(width_space(MPI.COMM_SELF), "resnet")
    weights, inputs = random_weights(network, 0), np.ones((4, 1))
    subject = Subject(network, weights, inputs, solve_state(network, weights, inputs))
    names = {check.name for check in [*all_checks(subject), existence_oscillation(subject)]}
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), flags=re.MULTILINE))
    assert listed == names
