"""Relations between keys, as far as they can be checked without arrays, and what commands need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fem_dnn.case.commands import Constant
from fem_dnn.case.domain import Interval, Rectangle
from fem_dnn.case.values import REFERENCE, split_reference
from fem_dnn.errors import BadInput, shown

if TYPE_CHECKING:
    from fem_dnn.case.schema import Case


def require_consistent(case: Case) -> None:
    """Check that the keys agree with each other and that every expression can be read.

    Raises:
        BadInput: The first disagreement.
    """
    _check_expressions(case)
    _check_targets(case)
    _check_counts(case)
    _check_outputs(case)
    _check_tracking(case)
    _check_bounds(case)
    _check_mask(case)
    _check_initial(case)
    _check_path(case)
    _check_nested(case)


def require_given_controls(case: Case) -> None:
    """What `forward` needs: a kernel and a bias that are given (or absent), not to be found.

    Raises:
        BadInput: One of them is a control.
    """
    for name, variables in (("kernel", "x, y, t"), ("bias", "x, t")):
        if getattr(case.network, name) is True:
            raise case.error(
                f"network.{name}",
                f"is true, but a forward solve trains nothing and needs the {name} itself",
                f"false, an expression in {variables}, or {REFERENCE}",
            )


def require_learning_problem(case: Case) -> None:
    """What `solve` and its relatives need: targets, and something to train.

    Raises:
        BadInput: There are no targets, or no control is to be trained.
    """
    if case.data.dataset is None and case.data.targets is None:
        raise case.error("data.targets", "is missing", _TARGETS[case.loss.kind])
    network = case.network
    if network.kernel is not True and network.bias is not True and not case.loss.train_outputs:
        raise case.error(
            "network", "has nothing to train", "kernel = true, bias = true, or train_outputs"
        )


def require_unbounded(case: Case) -> None:
    """What `critical` needs: controls without bounds.

    Raises:
        BadInput: There are some.
    """
    for name in type(case.bounds).model_fields:
        if getattr(case.bounds, name) is not None:
            raise case.error(
                f"bounds.{name}",
                "is set: critical points within bounds are not searched for yet",
                "no bounds for fem-dnn critical",
            )


def require_one_group(case: Case, command: str) -> None:
    """What commands need that do not deal samples out over groups of ranks.

    Raises:
        BadInput: The case asks for several groups.
    """
    if case.solver.sample_groups not in ("auto", 1):
        raise case.error(
            "solver.sample_groups",
            f"is {case.solver.sample_groups}, but {command} knows no groups",
            '1 or "auto" for it',
        )


def require_dense(case: Case, command: str) -> None:
    """What commands need that hold the kernel dense, whatever the width.

    Raises:
        BadInput: The case asks for the Gram form.
    """
    if case.solver.representation == "gram":
        raise case.error(
            "solver.representation",
            f'is "gram", but {command} holds the kernel dense',
            '"auto" or "dense" for it',
        )


def require_value_problem(case: Case) -> None:
    """What `value` needs: a problem of optimal control in which the state f alone is remembered.

    Raises:
        BadInput: Outputs are learned, derivatives of controls penalised, a control is free, or the
            Gram form is asked for.
    """
    require_learning_problem(case)
    require_dense(case, "value")
    if case.loss.train_outputs:
        wrong = "is true, but learned outputs are no controls in depth: V would depend on them"
        raise case.error("loss.train_outputs", wrong, "false")
    strength = case.regularization
    for name in ("kernel", "bias"):
        control = getattr(case.network, name)
        if control is False:
            continue
        for kind, why in (
            ("depth", "V would depend on the control's value at t besides the state"),
            ("width", "H would not be a minimum node by node"),
        ):
            weight = getattr(strength, f"{name}_{kind}")
            if weight > 0:
                wrong = f"is {weight}, but with penalised derivatives {why}"
                raise case.error(f"regularization.{name}_{kind}", wrong, "0.0")
        if control is True and getattr(strength, name) == 0:
            wrong = f"is 0.0, but a {name} that costs nothing has no unique minimiser in H"
            raise case.error(f"regularization.{name}", wrong, "a positive number")


def output_offsets(offsets: tuple[float, ...], count: int) -> tuple[float, ...]:
    """m_k for `count` outputs: one each; none given, or [0.0] alone, is 0 for any number of them.

    Raises:
        BadInput: Another number of offsets.
    """
    if offsets in ((), (0.0,)):
        return (0.0,) * count
    if len(offsets) != count:
        wrong = f"has {len(offsets)} entries"
        raise BadInput(None, "loss.offsets", wrong, f"{count}, one per output")
    return offsets


MAX_CLASSES = 10_000
"""Most classes, so that a wrong column is not taken for class numbers."""

_OUTPUT_LOSSES = "loss.kind = mse, logistic or softmax"

_TARGETS = {
    "l2": f"{REFERENCE} of shape (samples, nodes), or a list of expressions in x, one per sample",
    "mse": f"{REFERENCE} of shape (samples, outputs), or a list of rows of numbers",
    "logistic": f"{REFERENCE} of shape (samples,), or a list of +1 and -1",
    "softmax": f"{REFERENCE} of shape (samples,), or a list of class numbers 0, 1, ...",
}


def _check_expressions(case: Case) -> None:
    single: list[tuple[str, Any, tuple[str, ...]]] = [
        ("network.kernel", case.network.kernel, ("x", "y", "t")),
        ("network.bias", case.network.bias, ("x", "t")),
        ("network.kernel_mask", case.network.kernel_mask, ("x", "y")),
    ]
    for key, text, variables in single:
        if isinstance(text, str) and not split_reference(text):
            if ":" in text:
                names = ", ".join(variables)
                raise BadInput(
                    None,
                    key,
                    f"{shown(text)} is neither an expression nor an array",
                    f"an expression in {names}, or {REFERENCE}",
                )
            case.expression(key, text, variables)
    several: list[tuple[str, Any, tuple[str, ...]]] = [
        ("data.inputs", case.data.inputs, ("x",)),
        ("data.targets", case.data.targets, ("x",)),
        ("data.tracking_targets", case.data.tracking_targets, ("x", "t")),
        ("loss.outputs", case.loss.outputs, ("x",)),
    ]
    for key, entries, variables in several:
        for number, entry in enumerate(entries if isinstance(entries, tuple) else ()):
            if isinstance(entry, str):
                case.expression(f"{key}[{number}]", entry, variables)


def _check_targets(case: Case) -> None:
    """The targets have the form that the loss compares with, one per sample."""
    targets, kind = case.data.targets, case.loss.kind
    if not isinstance(targets, tuple):
        return
    key = "data.targets"
    wanted = {"l2": (str, float), "mse": (tuple, float)}.get(kind, (float,))
    if not isinstance(targets[0], wanted):
        raise BadInput(None, key, f"{shown(targets)} does not fit loss {kind}", _TARGETS[kind])
    for target in targets:
        if kind == "logistic" and target not in (-1.0, 1.0):
            raise BadInput(None, key, f"{target} is not a label", _TARGETS[kind])
        if kind == "softmax" and not (isinstance(target, float) and target in range(MAX_CLASSES)):
            raise BadInput(None, key, f"{target} is not a class number", _TARGETS[kind])


def _check_counts(case: Case) -> None:
    """Lists that have one entry per sample have equally many entries."""
    if not isinstance(case.data.inputs, tuple):
        return
    samples = len(case.data.inputs)
    for name in ("targets", "tracking_targets", "weights"):
        entries = getattr(case.data, name)
        if isinstance(entries, tuple) and len(entries) != samples:
            raise BadInput(
                None,
                f"data.{name}",
                f"has {len(entries)} entries for {samples} inputs",
                f"{samples} entries, one per sample",
            )


def _check_outputs(case: Case) -> None:
    loss = case.loss
    if loss.kind == "l2":
        if loss.train_outputs:
            raise BadInput(
                None,
                "loss.train_outputs",
                "has no meaning for loss l2, which compares functions and has no outputs",
                f"false, or {_OUTPUT_LOSSES}",
            )
        # The contract writes the defaults out, whatever the loss.
        for name, unused in (("outputs", (("1",), "default")), ("offsets", ((), (0.0,)))):
            if getattr(loss, name) not in unused:
                wrong = "has no meaning for loss l2, which compares functions and has no outputs"
                raise BadInput(None, f"loss.{name}", wrong, f"none, or {_OUTPUT_LOSSES}")
        return
    if not isinstance(loss.outputs, tuple):
        return
    count = len(loss.outputs)
    if loss.kind == "logistic" and count != 1:
        raise BadInput(None, "loss.outputs", f"has {count} entries", "one output for logistic")
    if loss.kind == "softmax" and count < 2:
        raise BadInput(
            None,
            "loss.outputs",
            "has one entry",
            'two or more for softmax, one per class, or "default"',
        )
    output_offsets(loss.offsets, count)
    targets = case.data.targets
    if loss.kind == "mse" and isinstance(targets, tuple):
        columns = len(targets[0]) if isinstance(targets[0], tuple) else 1
        if columns != count:
            raise BadInput(
                None,
                "data.targets",
                f"has {columns} numbers per sample for {count} outputs",
                f'{count}, or loss.outputs = "default"',
            )


def _check_tracking(case: Case) -> None:
    if case.loss.tracking > 0 and case.loss.kind != "l2" and case.data.tracking_targets is None:
        raise BadInput(
            None,
            "data.tracking_targets",
            f"is missing, but loss.tracking is {case.loss.tracking}",
            "expressions in x and t, one per sample, or "
            f"{REFERENCE} of shape (layers + 1, samples, nodes)",
        )


def _check_bounds(case: Case) -> None:
    """Bounds are those of a control; a control that is absent is 0, which they must allow."""
    for name, pair in case.bounds:
        control = getattr(case.network, name)
        if pair is None or control is True:
            continue
        if isinstance(control, str):
            raise BadInput(
                None, f"bounds.{name}", f"bounds a {name} that is given", f"network.{name} = true"
            )
        if not pair[0] <= 0.0 <= pair[1]:
            wrong = f"{list(pair)} excludes 0, which a {name} that is absent amounts to"
            raise BadInput(None, f"bounds.{name}", wrong, f"none, or network.{name} = true")


def _check_mask(case: Case) -> None:
    if case.network.kernel is False and case.network.kernel_mask is not None:
        raise BadInput(
            None,
            "network.kernel_mask",
            "masks a kernel that is absent",
            "no mask, or network.kernel = true, an expression or an array",
        )


def _check_initial(case: Case) -> None:
    """A constant guess speaks of controls that are trained; where none is, nobody reads it.

    The default values pass: `{ kind = "constant" }` alone is right for any network.
    """
    initial, network = case.solver.initial, case.network
    trains = True in (network.kernel, network.bias) or case.loss.train_outputs
    if not isinstance(initial, Constant) or not trains:
        return
    for name in ("kernel", "bias"):
        unused = (0.0, Constant.model_fields[name].default)
        if getattr(network, name) is not True and getattr(initial, name) not in unused:
            raise BadInput(
                None,
                f"solver.initial.{name}",
                f"is a guess of a {name} that is not trained",
                f"0.0, or network.{name} = true",
            )


def _check_path(case: Case) -> None:
    """The parameter is a real number of the case, and may take both end values."""
    if "path" not in case.model_fields_set:
        return
    try:
        case.number(case.path.parameter)
    except BadInput as problem:
        raise BadInput(
            None, "path.parameter", problem.wrong, "e.g. regularization.kernel, mesh.depth.length"
        ) from None
    for end in ("start", "stop"):
        value = getattr(case.path, end)
        tables = case.tables_with(case.path.parameter, value)
        del tables["path"]
        try:
            type(case).checked(tables)
        except BadInput as problem:
            wrong = f"{value} is no value for {case.path.parameter}: {problem.wrong}"
            raise BadInput(None, f"path.{end}", wrong, problem.allowed) from None


def _check_nested(case: Case) -> None:
    """Cells and layers can be halved as often as is asked for."""
    wanted, width = case.solver.nested, case.mesh.width
    numbers: dict[str, tuple[int, ...]] = {
        "mesh.depth has {} layers": (len(case.mesh.depth.slab_ends) - 1,)
    }
    if isinstance(width, Interval):
        numbers["mesh.width has {} cells"] = (width.cells,)
    elif isinstance(width, Rectangle):
        numbers["mesh.width has {} cells"] = width.cells
    for text, counts in numbers.items():
        # n & -n is the largest power of two that divides n.
        possible = min((n & -n).bit_length() - 1 for n in counts)
        if wanted > possible:
            has = text.format(" x ".join(map(str, counts)))
            raise BadInput(
                None,
                "solver.nested",
                f"is {wanted}, but {has}, which can be halved only {possible} times",
                f"0 to {possible}, or a number of cells that is divisible by 2 more often",
            )
