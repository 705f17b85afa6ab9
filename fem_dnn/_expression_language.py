"""The language of expressions: from text to a numexpr program, without executing anything.

The text is parsed with `ast`, and each node is translated by an explicit rule into a numexpr
node; a node without a rule is an error. No text reaches numexpr (which would `eval` it), and no
part of the expression is ever run by Python. All arithmetic is float64, so 1/2 is 0.5; constant
parts are folded on the way, so that 1/0 or 9**9**9 is found before there are any data.
"""

from __future__ import annotations

import ast
import difflib
import re
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import numexpr
import numpy as np
from numexpr.expressions import ConstantNode, ExpressionNode, OpNode, VariableNode, functions

from fem_dnn.errors import BadInput, shown

Term: TypeAlias = "np.float64 | np.bool_ | ExpressionNode"
"""A translated part: a constant (number or truth value) or a numexpr node."""

MAX_LENGTH = 2000
"""Longest expression, in characters."""
MAX_DEPTH = 120
"""Deepest nesting; a sum of n terms counts n."""
MAX_NODES = 240
"""Largest program: numexpr addresses its registers, one per node at the most, with one byte."""
MAX_DIMENSION = 3
"""Most coordinates that x and y can have."""

_CHARACTERS = re.compile(r"[A-Za-z0-9_+\-*/%()\[\],.<>=!&|~\s]*")

_ARITHMETIC: dict[type[ast.operator], tuple[str, Callable[..., Any]]] = {
    ast.Add: ("add", np.add),
    ast.Sub: ("sub", np.subtract),
    ast.Mult: ("mul", np.multiply),
    ast.Div: ("div", np.divide),
    ast.Pow: ("pow", np.power),
}
# numexpr has no "less than": the flag says that the operands change places.
_COMPARISONS: dict[type[ast.cmpop], tuple[str, Callable[..., Any], bool]] = {
    ast.Gt: ("gt", np.greater, False),
    ast.GtE: ("ge", np.greater_equal, False),
    ast.Lt: ("gt", np.greater, True),
    ast.LtE: ("ge", np.greater_equal, True),
    ast.Eq: ("eq", np.equal, False),
    ast.NotEq: ("ne", np.not_equal, False),
}
_CONNECTIVES: dict[type[ast.AST], tuple[str, Callable[..., Any]]] = {
    ast.BitAnd: ("and", np.logical_and),
    ast.And: ("and", np.logical_and),
    ast.BitOr: ("or", np.logical_or),
    ast.Or: ("or", np.logical_or),
}
_ELEMENTARY: dict[str, tuple[Callable[..., Any], int]] = {
    **{
        name: (getattr(np, name), 1)
        for name in (
            "sin", "cos", "tan", "arcsin", "arccos", "arctan",
            "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh",
            "exp", "expm1", "log", "log1p", "log10", "sqrt", "abs", "floor", "ceil",
        )
    },
    "arctan2": (np.arctan2, 2),
    "fmod": (np.fmod, 2),
}  # fmt: skip
"""Functions that numexpr knows: name -> (NumPy's, number of arguments)."""

_ALIASES = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2",
    "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
    "min": "minimum", "max": "maximum",
}  # fmt: skip

FUNCTIONS = (*_ELEMENTARY, "minimum", "maximum", "where")
"""The functions an expression may call, besides their aliases (asin, atan2, min, ...)."""

SYNTAX = (
    "numbers, pi, + - * / % **, < <= > >= == !=, & | ~ (or: and, or, not), parentheses, "
    "the variables, and the functions " + ", ".join(FUNCTIONS)
)
"""What expressions are made of, in words."""


class ExpressionError(BadInput):
    """An expression that cannot be read, or has no finite value."""


def compile_expression(
    text: str, variables: tuple[str, ...], dimension: int | None
) -> tuple[tuple[str, ...], Callable[..., Any] | np.float64]:
    """Read an expression.

    Args:
        text: The expression.
        variables: Names it may use, out of "x", "y", "t".
        dimension: Number of coordinates of x and y; None: not known yet.

    Returns:
        The variables it uses, as "x[0]", "t", ..., plain "x" where it stands alone; and the
        function of their values, or the value of an expression that uses none.

    Raises:
        ExpressionError: It is not an expression of this language.
    """
    translator = _Translator(variables, dimension)
    term = translator.number(translator.translate(_parse(text)))
    if not isinstance(term, ExpressionNode):
        return (), np.float64(term)
    names = sorted(translator.used)
    return tuple(names), numexpr.NumExpr(term, [(name, np.float64) for name in names])


def _error(wrong: str, allowed: str | None = None) -> ExpressionError:
    return ExpressionError(None, None, wrong, allowed)


def _parse(text: Any) -> ast.expr:
    if not isinstance(text, str):
        raise _error(f"{shown(text)} is not an expression", "text")
    if len(text) > MAX_LENGTH:
        raise _error(f"the expression has {len(text)} characters", f"at most {MAX_LENGTH}")
    # Python's parser normalises letters and knows strings, comments and statements; none of
    # these characters is needed, so none of that is reached.
    end = cast(re.Match[str], _CHARACTERS.match(text)).end()
    if end < len(text):
        hint = " (powers are written **)" if text[end] == "^" else ""
        raise _error(f"{shown(text)} contains {shown(text[end])}{hint}", SYNTAX)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(" ".join(text.split()), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as problem:
        reason = getattr(problem, "msg", "nested too deeply")
        raise _error(f"{shown(text)} is not an expression ({reason})", SYNTAX) from None


def _source(node: ast.AST) -> str:
    return shown(ast.unparse(node))


def _finite(value: np.float64, node: ast.expr) -> np.float64:
    if not np.isfinite(value):
        raise _error(f"{_source(node)} is not a finite number")
    return value


class _Translator:
    """Turns the syntax tree into numexpr nodes; raises at anything without a rule."""

    def __init__(self, variables: tuple[str, ...], dimension: int | None) -> None:
        self.variables, self.dimension = variables, dimension
        self.used: set[str] = set()
        self._depth = self._nodes = 0

    def translate(self, node: ast.expr) -> Term:
        """The term of a syntax node.

        Operands that a rule needs twice are translated twice: numexpr walks trees, so the count
        of nodes here is the work there, and nesting cannot blow it up unseen.
        """
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _error("the expression is nested too deeply", f"at most {MAX_DEPTH} levels")
        term = self._rule(node)
        self._depth -= 1
        return term

    def number(self, term: Term) -> Term:
        """The term as a number: truth values become 1 and 0."""
        if isinstance(term, np.bool_):
            return np.float64(term)
        if isinstance(term, ExpressionNode) and term.astKind == "bool":
            return self._emit("where", term, np.float64(1), np.float64(0))
        return term

    def _condition(self, node: ast.expr, connective: str) -> Term:
        term = self.translate(node)
        if isinstance(term, np.bool_) or (
            isinstance(term, ExpressionNode) and term.astKind == "bool"
        ):
            return term
        raise _error(
            f"{connective} has {_source(node)} beside it, which is not a comparison",
            "comparisons, each in parentheses, e.g. (x[0] > 0.2) & (x[0] < 0.5)",
        )

    def _operand(self, node: ast.expr) -> Term:
        return self.number(self.translate(node))

    def _rule(self, node: ast.expr) -> Term:
        """One rule per kind of syntax node; there are no others."""
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name():
                return self._name(node)
            case ast.Subscript():
                return self._subscript(node)
            case ast.UnaryOp():
                return self._unaryop(node)
            case ast.BinOp():
                return self._binop(node)
            case ast.BoolOp():
                return self._connect(node, type(node.op), node.values)
            case ast.Compare():
                return self._compare(node)
            case ast.Call():
                return self._call(node)
        raise _error(f"{_source(node)} cannot be part of an expression", SYNTAX)

    def _constant(self, node: ast.Constant) -> Term:
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise _error(f"{_source(node)} is not a real number", SYNTAX)
        try:
            return _finite(np.float64(node.value), node)
        except OverflowError:
            raise _error(f"{_source(node)} is not a finite number") from None

    def _name(self, node: ast.Name) -> Term:
        if node.id == "pi":
            return np.float64(np.pi)
        if node.id not in self.variables:
            raise self._unknown(node.id)
        if node.id == "t":
            return self._variable("t")
        if self.dimension not in (1, None):
            raise _error(f"{node.id} has {self.dimension} coordinates", self._names())
        return self._variable(node.id if self.dimension is None else f"{node.id}[0]")

    def _subscript(self, node: ast.Subscript) -> Term:
        array, index = node.value, node.slice
        if not (isinstance(array, ast.Name) and array.id in ("x", "y")):
            raise _error(f"{_source(node)} cannot be indexed", self._names())
        if array.id not in self.variables:
            raise self._unknown(array.id)
        coordinates = range(self.dimension or MAX_DIMENSION)
        if not (
            isinstance(index, ast.Constant)
            and type(index.value) is int
            and index.value in coordinates
        ):
            raise _error(f"{_source(node)} is not a coordinate", self._names())
        return self._variable(f"{array.id}[{index.value}]")

    def _unaryop(self, node: ast.UnaryOp) -> Term:
        if isinstance(node.op, ast.Not | ast.Invert):
            term = self._condition(node.operand, "not")
            return self._apply(node, "invert", np.logical_not, term, kind="bool")
        term = self._operand(node.operand)
        if isinstance(node.op, ast.UAdd):
            return term
        return self._apply(node, "neg", np.negative, term)

    def _binop(self, node: ast.BinOp) -> Term:
        operator = type(node.op)
        if operator in _CONNECTIVES:
            return self._connect(node, operator, [node.left, node.right])
        if operator is ast.Mod:
            return self._remainder(node)
        if operator not in _ARITHMETIC:
            raise _error(f"{_source(node)} uses an operator that is not known", SYNTAX)
        opcode, fold = _ARITHMETIC[operator]
        return self._apply(node, opcode, fold, self._operand(node.left), self._operand(node.right))

    def _remainder(self, node: ast.BinOp) -> Term:
        """The remainder a % b with the sign of b, from C's fmod, which has that of a."""

        def fmod() -> Term:
            terms = self._operand(node.left), self._operand(node.right)
            return self._apply(node, "fmod", np.fmod, *terms)

        negative = self._apply(node, "mul", np.multiply, fmod(), self._operand(node.right))
        other_sign = self._apply(node, "gt", np.greater, np.float64(0), negative, kind="bool")
        shifted = self._apply(node, "add", np.add, fmod(), self._operand(node.right))
        return self._apply(node, "where", np.where, other_sign, shifted, fmod())

    def _connect(self, node: ast.expr, operator: type[ast.AST], operands: list[ast.expr]) -> Term:
        opcode, fold = _CONNECTIVES[operator]
        first, *others = [self._condition(operand, opcode) for operand in operands]
        for other in others:
            first = self._apply(node, opcode, fold, first, other, kind="bool")
        return first

    def _compare(self, node: ast.Compare) -> Term:
        """A chain a < b < c is (a < b) & (b < c)."""
        operands = [node.left, *node.comparators]
        links = []
        for operator, left, right in zip(node.ops, operands, operands[1:], strict=False):
            if type(operator) not in _COMPARISONS:
                raise _error(f"{_source(node)} is not a comparison of numbers", SYNTAX)
            opcode, fold, swapped = _COMPARISONS[type(operator)]
            pair = [self._operand(left), self._operand(right)]
            links.append(
                self._apply(node, opcode, fold, *pair[:: -1 if swapped else 1], kind="bool")
            )
        first, *others = links
        for other in others:
            first = self._apply(node, "and", np.logical_and, first, other, kind="bool")
        return first

    def _call(self, node: ast.Call) -> Term:
        if not isinstance(node.func, ast.Name):
            raise _error(f"{_source(node.func)} is not a function", ", ".join(FUNCTIONS))
        name = _ALIASES.get(node.func.id, node.func.id)
        if name not in FUNCTIONS:
            raise self._unknown(node.func.id)
        arity = {"where": 3, "minimum": 2, "maximum": 2}.get(name) or _ELEMENTARY[name][1]
        if node.keywords or len(node.args) != arity:
            raise _error(
                f"{_source(node)} has the wrong number of arguments",
                f"{name} with {arity} argument{'s' if arity > 1 else ''}",
            )
        if name == "where":
            condition = self._condition(node.args[0], "where")
            branches = [self._operand(argument) for argument in node.args[1:]]
            return self._apply(node, name, np.where, condition, *branches)
        if name in ("minimum", "maximum"):
            return self._extremum(node, swapped=name == "minimum")
        fold, _ = _ELEMENTARY[name]
        return self._apply(node, name, fold, *(self._operand(a) for a in node.args))

    def _extremum(self, node: ast.Call, *, swapped: bool) -> Term:
        """maximum(a, b) is where(a > b, a, b); minimum compares the other way round."""
        pair = [self._operand(argument) for argument in node.args]
        greater = self._apply(node, "gt", np.greater, *pair[:: -1 if swapped else 1], kind="bool")
        return self._apply(node, "where", np.where, greater, *map(self._operand, node.args))

    # building numexpr nodes

    def _apply(
        self,
        node: ast.expr,
        opcode: str,
        fold: Callable[..., Any],
        *terms: Term,
        kind: str = "double",
    ) -> Term:
        if any(isinstance(term, ExpressionNode) for term in terms):
            return self._emit(opcode, *terms, kind=kind)
        with np.errstate(all="ignore"):
            value = fold(*terms)
        return np.bool_(value) if kind == "bool" else _finite(np.float64(value), node)

    def _emit(self, opcode: str, *terms: Term, kind: str = "double") -> ExpressionNode:
        nodes = [
            term if isinstance(term, ExpressionNode) else self._count(ConstantNode(_plain(term)))
            for term in terms
        ]
        if opcode in _ELEMENTARY:
            return self._count(functions[opcode](*nodes))
        return self._count(OpNode(opcode, nodes, kind))

    def _variable(self, name: str) -> ExpressionNode:
        self.used.add(name)
        return self._count(VariableNode(name, "double"))

    def _count(self, node: ExpressionNode) -> ExpressionNode:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _error("the expression is too long", f"at most {MAX_NODES} operations")
        return node

    def _unknown(self, name: str) -> ExpressionError:
        if name in (*FUNCTIONS, *_ALIASES):
            return _error(f"{shown(name)} is a function and needs arguments", f"{name}(...)")
        known = [*self._names().split(", "), *FUNCTIONS, *_ALIASES]
        near = difflib.get_close_matches(name, known, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return _error(
            f"{shown(name)} is not known here{hint}",
            f"{self._names()}, {', '.join(FUNCTIONS)}",
        )

    def _names(self) -> str:
        names: list[str] = []
        for name in self.variables:
            coordinates = range(self.dimension or MAX_DIMENSION)
            names += ["t"] if name == "t" else [f"{name}[{k}]" for k in coordinates]
        return ", ".join([*names, "pi"])


def _plain(value: np.float64 | np.bool_) -> np.float64 | bool:
    """Constants as numexpr takes them: float64 is its double, Python's bool its truth value."""
    return bool(value) if isinstance(value, np.bool_) else value
