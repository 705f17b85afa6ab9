"""Pages of measurements: what they conclude, and that each is the page of its stored record."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from benchmarks import (
    memory_page,
    parallel_page,
    robustness,
    sweep_page,
    two_ranks_page,
    width_aims,
    width_page,
)
from benchmarks.markdown import duration, number, span, table
from benchmarks.revision import measured_with, revision

DOCS = Path(__file__).resolve().parent.parent / "docs"


def stored(name):
    return json.loads((DOCS / f"{name}.json").read_text())


class TestMarkdown:
    def test_sets_numbers_flush_right_behind_the_text(self):
        lines = table(["a", "b"], [["x", "1"]], text=1).splitlines()
        assert lines == ["| a | b |", "| --- | ---: |", "| x | 1 |"]

    def test_writes_numbers(self):
        assert number(1234567.0) == "1 234 567"
        assert span([3, 1200, 7]) == "3 to 1 200"
        assert span([1.01, 0.99], ".1f") == "1.0"
        assert [duration(t) for t in (0.0123456, 0.9996, 12.0)] == ["12.3 ms", "1 s", "12 s"]


class TestRevision:
    @pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
    def test_is_the_last_commit_that_has_changed_the_package(self, tmp_path):
        def git(*arguments):
            who = ["-c", "user.name=a", "-c", "user.email=a@b"]
            command = ["git", "-C", str(tmp_path), *who, *arguments]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        assert revision(tmp_path) == ""
        git("init", "-q")
        (tmp_path / "fem_dnn").mkdir()
        (tmp_path / "fem_dnn" / "a.py").write_text("1")
        git("add", "."), git("commit", "-qm", "one")
        first = git("rev-parse", "--short", "HEAD").strip()
        (tmp_path / "page.md").write_text("2")
        git("add", "."), git("commit", "-qm", "two")
        assert revision(tmp_path) == first
        (tmp_path / "fem_dnn" / "a.py").write_text("3")
        assert revision(tmp_path) == first + "-dirty"
        git("tag", "v1"), git("commit", "-qam", "three")
        assert revision(tmp_path).startswith("v1-1-g")

    def test_a_page_says_what_its_rows_do_not_name(self):
        named = {"version": "0.1.0", "revision": "abc"}
        assert measured_with([named, named]) == "fem-dnn 0.1.0 at abc"
        assert "1 of 2 rows" in measured_with([named, {}])
        assert "does not name" in measured_with([{"version": "0.1.0"}])


def sweep_row(**more):
    return {
        "nodes": 512,
        "samples": 512,
        "layers": 32,
        "threads": 1,
        "gigaflops": 40.0,
        "gradient": 0.8,
        "plain": 1.0,
        "product": 1.5,
        "gradient_share": 0.81,
        "plain_share": 0.7,
        "product_to_gradient": 1.9,
        "difference": 1e-15,
        "load": 0.1,
        "gradient_needs": 100.0,
        "gradient_peak": 129.0,
        "product_needs": 100.0,
        "product_peak": 102.0,
    } | more


class TestSweepPage:
    def page(self, *rows):
        return sweep_page.page({"rounds": 3, "rows": list(rows)})

    def test_reaches_what_is_aimed_at(self):
        text = self.page(sweep_row())
        assert text.count("| reached |") == 1
        assert "Every aim is reached" in text

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"gradient_share": 0.799}, "rate 79.9%"),
            ({"product_to_gradient": 2.21}, "product 2.21"),
            ({"gradient_peak": 131.0}, "memory 1.31"),
            ({"product_peak": 140.0}, "memory 1.40"),
        ],
    )
    def test_says_what_is_missed(self, more, said):
        assert f"**not reached**: {said} |" in self.page(sweep_row(**more))

    def test_gives_both_rates_where_both_are_known(self):
        assert "| ? |" in self.page(sweep_row())
        text = self.page(sweep_row(square_gigaflops=50.0))
        share = 6 * 512**3 * 32 / 0.8 / 50e9
        assert f"| 81.0% | {share:.1%} |" in text and "?" not in text

    def test_blames_a_single_thread_only_where_the_machine_gains_by_a_second(self):
        size = {"nodes": 128, "samples": 256, "gradient_share": 0.45}
        one, two = sweep_row(**size), sweep_row(**size, threads=2, gigaflops=70.0)
        assert "*One thread where there are more* (128 x 256 on 2 threads)" in self.page(one, two)
        assert "*One thread" not in self.page(one, two | {"gigaflops": 41.0})

    def test_the_page_is_that_of_the_record(self):
        assert (DOCS / "sweep.md").read_text() == sweep_page.page(stored("sweep"))


def solve_row(nodes, seconds, **more):
    return {
        "measure": "solve",
        "nodes": nodes,
        "processor_seconds": seconds,
        "seconds": seconds,
        "converged": True,
        "iterations": 5,
        "hessian_products": 20,
        "control_gigabytes": 8e-9 * nodes * 16 * 32,
        "peak_gigabytes": 0.2 + 1e-4 * nodes,
        "gflops": 45.0,
    } | more


def product_row(nodes, growth, **more):
    return {
        "measure": "product",
        "nodes": nodes,
        "beside": nodes // 2,
        "product": 1.0,
        "product_beside": 0.5,
        "growth": growth,
        "gflops": 45.0,
    } | more


def width_record(*rows):
    settings = {"samples": 16, "layers": 32, "penalty": 0.1, "rtol": 1e-6, "rounds": 5}
    return settings | {"rows": list(rows)}


class TestWidthPage:
    def verdict(self, record, what):
        (table,) = width_aims.verdicts(record)
        (line,) = (line for line in table.splitlines() if line.startswith(f"| {what}"))
        return line

    def test_growth_counts_from_the_first_width_of_the_aim_to_the_last(self):
        before = product_row(1000, 3.0)
        record = width_record(before, product_row(2000, 2.1), product_row(300_000, 2.0))
        assert "2.10 to 300 000 nodes | reached |" in self.verdict(record, "cost of a product")
        record = width_record(product_row(2000, 2.21), product_row(300_000, 2.0))
        assert "**not reached**" in self.verdict(record, "cost of a product")
        record = width_record(product_row(2000, 2.0), product_row(4000, 2.0))
        assert "open: measured to 4 000 nodes only" in self.verdict(record, "cost of a product")

    def test_steps_grow_among_solves_of_one_size(self):
        few = {"layers": 8}
        record = width_record(
            solve_row(1000, 1.0),
            solve_row(4000, 4.41),
            solve_row(150_000, 100.0, **few),
            solve_row(300_000, 190.0, **few),
            solve_row(300_000, 500.0, at_once=6),
        )
        growths = width_aims.step_growths(record)
        assert growths == pytest.approx({4000: 2.1, 300_000: 1.9})
        assert "2.10 to 300 000 nodes | reached |" in self.verdict(record, "cost of a Newton step")

    def test_finds_what_memory_no_width_changes(self):
        record = width_record(solve_row(1000, 1.0), solve_row(4000, 4.0), solve_row(9000, 9.0))
        constant, factor = width_aims.constant_and_factor(record)
        must = width_aims.needed(record, solve_row(1000, 1.0))
        assert constant == pytest.approx(0.2)
        assert factor == pytest.approx(0.1 / must)

    def test_minutes_and_memory_are_held_against_the_aims(self):
        record = width_record(solve_row(100_000, 599.0, peak_gigabytes=1.31 * 4.5824))
        assert "| reached |" in self.verdict(record, "100 000 nodes")
        text = width_page.page(record)
        assert "| 1.31 | **not reached** |" in text
        record = width_record(solve_row(100_000, 601.0))
        assert "**not reached**" in self.verdict(record, "100 000 nodes")

    def test_the_page_is_that_of_the_record(self):
        assert (DOCS / "width.md").read_text() == width_page.page(stored("width"))


def parallel_row(nodes, samples, rows, shares, **more):
    row = {"nodes": nodes, "samples": samples, "layers": 8, "rounds": 3, "load": 1.0, "cores": 2}
    for clock in ("", " processor"):
        row |= {f"rate {name}{clock}": 4e10 for name in ("one", "two")}
        for what in ("gradient", "hessian"):
            row[f"alone {what}{clock}"] = 2.0
            for mode, speedup in (("width", rows), ("samples", shares)):
                row[f"{mode} {what}{clock}"] = 2.0 / speedup
                row[f"{mode} {what} speedup{clock}"] = speedup
    return row | more


def solves(*seconds):
    common = {"problem": "waves", "objective": 0.1, "nodes": 256, "samples": 512, "layers": 16}
    common |= {"gradients": 5, "hessian_products": 3, "sweeps": 22, "rate": 48.0}
    common |= {"version": "0.1.0", "revision": "abc"}
    return [
        common | {"ranks": ranks, "groups": groups, "seconds": time}
        for ranks, groups, time in zip((1, 2, 2), (1, 1, 2), seconds, strict=True)
    ]


class TestParallelPage:
    def section(self, *rows, **more):
        return "\n".join(two_ranks_page.two_ranks({"rows": list(rows)} | more))

    def test_holds_both_ways_against_the_aim(self):
        text = self.section(parallel_row(1024, 512, 1.849, 1.85))
        lines = [line for line in text.splitlines() if line.startswith(("| rows", "| samples"))]
        assert [line.split(" | ")[-1] for line in lines] == ["**not reached** |"] * 2 + [
            "reached |"
        ] * 2
        assert "*Rows.*" in text
        assert "*Rows.*" not in self.section(parallel_row(1024, 512, 1.86, 1.9))

    def test_says_which_way_auto_goes(self):
        wide, many = parallel_row(1024, 64, 1.6, 1.9), parallel_row(256, 512, 1.4, 1.9)
        text = self.section(wide, many)
        assert "rows for 1 024, 64, 8, and samples for 256, 512, 8" in text
        assert "*The choice of `auto`.* On 1 024, 64, 8 it shares rows" in text

    def test_says_what_whole_solves_take(self):
        row = parallel_row(1024, 512, 1.6, 1.9)
        text = self.section(row, solves=solves(6.0, 4.0, 3.0))
        what = "| waves: 256, 512, 16 |"
        assert f"{what} one rank | 6 s |  | 5 | 3 | 22 | 0.1 | 48 |" in text
        assert f"{what} rows | 4 s | 1.50 | 5 |" in text
        assert f"{what} samples | 3 s | 2.00 | 5 |" in text
        assert "has not been measured" in self.section(row)

    def test_says_how_far_the_model_is_off(self):
        pairs = {("width", "gradient"): [(0.7, 1.0)], ("samples", "gradient"): [(1.8, 2.0)]}
        assert parallel_page.bias(pairs, "width") == [0.7]
        told = parallel_page._optimism(pairs)
        assert "too short:** 0.70 to 0.90 of what was measured, 0.70 by rows" in told
        assert "off either way" in parallel_page._optimism(
            pairs | {("samples", "gradient"): [(2.2, 2.0)]}
        )

    def test_the_page_is_that_of_the_record(self):
        assert (DOCS / "parallel.md").read_text() == parallel_page.page(stored("parallel"))


class TestRobustnessPage:
    def solved(self, method, seed, sweeps):
        return {
            "problem": "sine",
            "method": method,
            "seed": seed,
            "converged": True,
            "iterations": 9,
            "sweeps": sweeps,
            "objective": 0.1,
            "version": "0.1.0",
        }

    def test_compares_work_from_the_same_starts(self):
        newtons = [self.solved("newton", seed, work) for seed, work in enumerate((900, 100, 50))]
        rest = self.solved("lbfgs", 0, 1300)
        text = robustness.page([*newtons, rest])
        assert "| sine | newton | 3 | 100% | 100% | 9 | 100 |  | 0.1, 0.1, 0.1 |" in text
        assert "| sine | lbfgs | 1 | 100% | 100% | 9 | 1 300 | 900 | 0.1, 0.1, 0.1 |" in text
        assert "fem-dnn 0.1.0 at a commit that the record does not name" in text

    def test_the_page_is_that_of_the_record(self):
        assert (DOCS / "robustness.md").read_text() == robustness.page(stored("robustness"))


class TestMemory:
    def test_is_that_of_its_record(self):
        assert (DOCS / "memory.md").read_text() == memory_page.page(stored("memory"))

    def test_knows_the_best_schedule(self):
        """Against the recursion it solves: march to where the next checkpoint is best put."""

        @cache
        def best(steps, checkpoints):
            if steps == 1:
                return 0
            if checkpoints == 1:
                return steps * (steps - 1) // 2
            return min(
                first + best(steps - first, checkpoints - 1) + best(first, checkpoints)
                for first in range(1, steps)
            )

        for steps in range(2, 33):
            for checkpoints in range(1, 6):
                expected = best(steps, checkpoints)
                assert memory_page.revolve(steps, checkpoints) == expected, (steps, checkpoints)

    def test_says_which_peaks_are_too_high(self):
        record = stored("memory")
        some = next(row for row in record["rows"] if row["limit"] is not None)
        some["peak"] = 2 * some["limit"]
        assert "lie above" in memory_page.page(record)
