"""`fem-dnn check`: solve a case, then test the theory on what came out."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from fem_dnn import commands
from fem_dnn.assembly import assemble
from fem_dnn.case import Case
from fem_dnn.check_report import pictures_in, report_page
from fem_dnn.checks import Check, Subject, all_checks, none_applicable, spectrum_of
from fem_dnn.collective import on_root
from fem_dnn.controllability import GramianSpectrum
from fem_dnn.existence.oscillation_check import existence_oscillation
from fem_dnn.files import write_whole
from fem_dnn.gram.choice import made_dense
from fem_dnn.request import CaseLike, Request, read_any
from fem_dnn.results import write_json
from fem_dnn.solvers import Tolerances
from fem_dnn.threads import suitable_threads

TOO_LARGE = (
    "the checks need a dense kernel, for which the width is too large; use fewer width nodes or "
    "layers, or run `fem-dnn solve`"
)
"""Why a solution in Gram form may be left unchecked."""


def check(case: CaseLike, request: Request | None = None) -> dict[str, Any]:
    """Solve a case and run all checks on the result (collective).

    A case with something to train is solved as `solve` does, another one as `forward` does. The
    result is theirs with `checks`; a solve that has not converged is checked all the same, and
    `converged` says so. Where the state equation could not be solved `checks` is empty.

    Raises:
        BadInput: The case is wrong; the same on all ranks.
    """
    request = request or Request()
    case = read_any(case, request)
    checks: list[Check] = []
    if trains(case):
        run = commands.solve(case, request)
        result = run.result
        subject = None
        if run.solution is not None:
            dense = made_dense(run.model, run.solution.at)
            if dense is None:
                checks = none_applicable(TOO_LARGE)
            else:
                subject = Subject.of_model(*dense)
    else:
        result = commands.forward(case, request)
        subject = None
        if result["converged"]:
            subject = Subject.of_model(assemble(case, request.comm))
    spectrum: GramianSpectrum | str = ""
    if subject is not None:
        request.say("checking")
        tolerances = Tolerances(case.solver.rtol, case.solver.atol, case.solver.max_iterations)
        problem = None if subject.at is None else subject.at.problem
        with nullcontext() if problem is None else suitable_threads(problem):
            spectrum = spectrum_of(subject)
            checks = [
                *all_checks(subject, tolerances, spectrum),
                existence_oscillation(subject),
            ]
    result = {**result, "checks": [each.as_dict() for each in checks]}
    _write(case.file or "a case given in Python", result, subject, spectrum, request)
    return result


def trains(case: Case) -> bool:
    """Whether `check` has a learning problem to solve first."""
    network = case.network
    return network.kernel is True or network.bias is True or case.loss.train_outputs


def _write(
    title: str,
    result: dict[str, Any],
    subject: Subject | None,
    spectrum: GramianSpectrum | str,
    request: Request,
) -> None:
    if request.out is None:
        return
    from fem_dnn.checks.curves import curves_along_depth

    out = request.out
    curves = None if subject is None else curves_along_depth(subject)

    def write() -> None:
        write_json(out / "result.json", result)
        if curves is None:
            return
        from fem_dnn import pictures

        pictures.save(pictures.bounds_along_depth(curves), out / "checks.png")
        if isinstance(spectrum, GramianSpectrum) and spectrum.largest > 0:
            pictures.save(pictures.gramian_spectrum(spectrum), out / "gramian.png")
        page = report_page(title, result, pictures_in(out)).encode()
        write_whole(out / "report.html", lambda file: file.write(page))

    on_root(request.comm, write)


def state_was_solved(result: dict[str, Any]) -> bool:
    """Whether there was anything to check: what the exit status of `fem-dnn check` says."""
    return bool(result["checks"])
