"""Existence of minimisers: convexity of the extended velocity set (theory.md section 5).

In v = sigma(u) the cost has the Hessian D [K^{-1} - diag(q sigma''/sigma')] D, D = diag(1/sigma').
Scaled by K = M M' on both sides the bracket is I - M' diag(q sigma''/sigma') M; its lowest
eigenvalue over depth and width is the certificate, 1 where sigma is linear.
"""

from __future__ import annotations

import numpy as np
from mpi4py import MPI

from fem_dnn.checks.check import Check, not_applicable
from fem_dnn.checks.features import Pointwise, pointwise, why_not_pointwise
from fem_dnn.checks.subject import Subject

SOURCE = "theory.md section 5 (Filippov, Roxin)"

MOST_ENTRIES = 2**22
"""Entries of the eigenvalue problems that are held at one time."""


def existence_convexity(subject: Subject) -> Check:
    """The cost is convex in v = sigma(u) at the computed controls (collective).

    The multiplier is q_s = -w_s sigma'(u_s) p_s, which at critical points is K^{-1}u.
    """
    name, activation = "existence_convexity", subject.network.activation
    why = why_not_pointwise(subject)
    if why is None and activation.name != "relu" and not activation.increasing:
        why = f"{activation.name} is not strictly increasing: v = sigma(u) is no coordinate"
    if why is not None:
        return not_applicable(name, why, SOURCE)
    kinked = activation.name == "relu"
    states, samples = subject.level_states(), subject.inputs.shape[1]
    lowest, rank = np.inf, samples
    for level in range(subject.levels.count):
        point = pointwise(subject, level, states)
        rank = min(rank, point.rank)
        if kinked and rank < samples:
            continue
        lowest = min(lowest, _sign_margin(point) if kinked else _lowest(subject, point))
    comm = subject.network.space.comm
    rank = comm.allreduce(rank, op=MPI.MIN)
    value = comm.allreduce(lowest, op=MPI.MIN)
    if rank < samples:
        text = (
            f"K has rank {rank} for {samples} samples: u is confined to its range, where the "
            "velocity set is in general not convex; the value is the certificate within the range"
        )
        if activation.curvature == 0:
            return Check(name, True, value, 0.0, f"{text}; it is convex, sigma is linear", SOURCE)
        return Check(name, None, None if kinked else value, 0.0, text, SOURCE)
    holds = bool(value >= 0 if kinked else value > 0)
    if kinked:
        text = (
            "relu: convex if and only if all off-diagonal entries of K^{-1} are <= 0; value: minus "
            "the largest of them, with K^{-1} scaled to unit diagonal"
        )
    else:
        text = (
            "lowest eigenvalue of I - K^{1/2} diag(q sigma''/sigma') K^{1/2}, any depth and neuron"
        )
    if samples == 1:
        text += "; one sample: convex everywhere for linear, tanh, sigmoid, relu"
    elif activation.name in ("tanh", "sigmoid"):
        text += (
            "; at the computed controls: with several samples the whole set is convex only where "
            "K is diagonal"
        )
    if not holds:
        text += (
            "; not convex: depth switches may do better than any smooth control, and with "
            "tracking the infimum need not be attained; kernel_depth > 0 restores a minimiser"
        )
    return Check(name, holds, float(value), 0.0, text, SOURCE)


def _lowest(subject: Subject, point: Pointwise) -> float:
    """Lowest eigenvalue of I - M' diag(q sigma''/sigma') M over this rank's nodes."""
    _, _, second = subject.network.activation.evaluate(point.u, 2)
    d = -point.c * second  # q sigma''/sigma' with q = -c sigma'
    M = point.factor
    size = M.shape[2]
    chunk = max(1, MOST_ENTRIES // (size * M.shape[1]))
    lowest = np.inf
    for start in range(0, len(d), chunk):
        part = slice(start, start + chunk)
        rows = M if len(M) == 1 else M[part]
        bracket = np.eye(size) - rows.transpose(0, 2, 1) @ (d[part, :, None] * rows)
        lowest = min(lowest, float(np.min(np.linalg.eigvalsh(bracket), initial=np.inf)))
    return lowest


def _sign_margin(point: Pointwise) -> float:
    """Minus the largest off-diagonal entry of K^{-1}, scaled to unit diagonal; 1 for S = 1."""
    K = point.factor @ point.factor.transpose(0, 2, 1)
    samples = K.shape[1]
    if samples == 1:
        return 1.0
    inverse = np.linalg.inv(K[np.any(K != 0, axis=(1, 2))])
    root = np.sqrt(np.diagonal(inverse, axis1=1, axis2=2))
    scaled = inverse / root[:, :, None] / root[:, None, :]
    off = scaled[:, ~np.eye(samples, dtype=bool)]
    return -float(np.max(off, initial=-1.0))
