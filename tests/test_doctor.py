"""The report on the environment, and the judgements in it."""

import json

import numpy as np
import pytest

from fem_dnn import doctor
from fem_dnn.doctor import Verdict

XEON = """processor\t: 0
cpu MHz\t\t: 2500.000
flags\t\t: fpu sse2 avx fma avx2 avx512f
"""
ARM = "processor : 0\nFeatures : fp asimd\n"


@pytest.fixture(scope="module")
def report():
    return doctor.examine()


def test_this_environment_can_run_the_program(report):
    wrong = [finding for finding in report.findings if finding.verdict is Verdict.WRONG]
    assert wrong == []
    values = {finding.name: finding.value for finding in report.findings}
    assert values["numpy"] == np.__version__
    assert values["PETSc scalars"] == "real, double precision"
    assert report.gflops > 0


def test_the_report_goes_through_json(report):
    read = json.loads(json.dumps(report.as_dict()))
    assert read["healthy"] is report.healthy
    assert read["gflops"] == report.gflops
    assert [finding["name"] for finding in read["findings"]] == [f.name for f in report.findings]
    assert {finding["verdict"] for finding in read["findings"]} <= {*Verdict}


def test_the_text_has_a_line_for_every_finding(report):
    lines = doctor.render(report).splitlines()
    for finding in report.findings:
        (line,) = [line for line in lines if line[2:].split("  ")[0] == finding.name]
        assert finding.value in line
        assert finding.advice in line


def test_peak_is_clock_times_operations_times_threads():
    assert doctor.peak_gflops(XEON, threads=2) == pytest.approx(2.5 * 32 * 2)
    assert doctor.peak_gflops(XEON.replace(" avx512f", ""), threads=1) == pytest.approx(2.5 * 16)
    assert doctor.peak_gflops(ARM, threads=1) is None  # it does not tell its clock
    assert doctor.peak_gflops("", threads=1) is None


@pytest.mark.parametrize(
    ("gflops", "peak", "tuned", "verdict", "advice"),
    [
        (60.0, 83.0, True, Verdict.GOOD, ""),
        (9.0, 83.0, True, Verdict.GOOD, "busy"),
        (1.6, 83.0, False, Verdict.POOR, "libopenblas0-pthread"),  # measured: the reference BLAS
        (1.6, None, False, Verdict.POOR, "libopenblas0-pthread"),
        (30.0, None, False, Verdict.GOOD, ""),  # a good library that threadpoolctl does not know
    ],
)
def test_a_reference_blas_is_noticed(gflops, peak, tuned, verdict, advice):
    finding = doctor.rate_finding(gflops, peak, threads=1, tuned=tuned)
    assert finding.verdict is verdict
    assert advice in finding.advice
    assert bool(finding.advice) is bool(advice)
    assert f"{gflops:.1f} GFLOP/s with 1 thread;" in finding.value


def test_complex_scalars_are_refused():
    assert doctor._scalar_type(np.complex128).verdict is Verdict.WRONG
    assert doctor._scalar_type(np.float32).verdict is Verdict.WRONG
    assert doctor._scalar_type(np.float64).verdict is Verdict.GOOD


def test_too_many_threads_are_noticed():
    def verdict(cores, ranks, threads):
        return doctor._parallel(cores, ranks, threads)[-1].verdict

    assert verdict(cores=4, ranks=2, threads=2) is Verdict.GOOD
    assert verdict(cores=2, ranks=2, threads=2) is Verdict.POOR
    assert verdict(cores=2, ranks=3, threads=1) is Verdict.GOOD  # more ranks than cores: asked for


def test_what_is_absent_is_named_with_its_purpose(monkeypatch):
    monkeypatch.setitem(doctor.OPTIONAL, "no_such_module", "nothing at all")
    (finding,) = [f for f in doctor._optional_parts() if f.name == "no_such_module"]
    assert (finding.verdict, finding.advice) == (Verdict.ABSENT, "nothing at all")
    monkeypatch.setattr(doctor, "REQUIRED", ("no-such-project",))
    finding = doctor._versions()[-1]
    assert (finding.verdict, finding.value) == (Verdict.WRONG, "not found")


def test_a_slow_product_is_not_repeated_at_full_size(monkeypatch):
    orders = []

    def rate(order):
        orders.append(order)
        return 1.6

    monkeypatch.setattr(doctor, "_product_rate", rate)
    assert doctor.measure_gflops() == 1.6
    assert orders == [500]
