"""The scripts of the folder environment: what enters it, what makes it, and what goes wrong."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone

REPOSITORY = Path(__file__).resolve().parent.parent
ENTER = REPOSITORY / "environment" / "enter"

spec = importlib.util.spec_from_file_location("host", REPOSITORY / "environment" / "host.py")
host = importlib.util.module_from_spec(spec)
spec.loader.exec_module(host)


def run(*command, **options):
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=environment, **options
    )


class TestEnter:
    """In these tests this environment's own Python plays the host that has dolfinx."""

    def test_passes_arguments_streams_and_exit_status(self, tmp_path):
        program = "import sys; print(sys.argv[1:], sys.stdin.read()); sys.exit(7)"
        done = run(ENTER, "python3", "-c", program, "a b", "*", "", cwd=tmp_path, input="input")
        assert done.stdout == "['a b', '*', ''] input\n"
        assert done.returncode == 7

    def test_works_in_the_repository_through_a_link_from_anywhere(self, tmp_path):
        link = tmp_path / "a link"
        link.symlink_to(ENTER)
        done = run(link, "pwd", cwd="/")
        assert done.stdout == f"{REPOSITORY}\n"

    def test_finds_this_checkout_and_its_command(self):
        program = "import fem_dnn, shutil; print(fem_dnn.__path__[0], shutil.which('fem-dnn'))"
        done = run(ENTER, "python3", "-c", program, env={"PATH": "/usr/local/bin:/usr/bin:/bin"})
        command = REPOSITORY / "environment" / "bin" / "fem-dnn"
        assert done.stdout.split() == [str(REPOSITORY / "fem_dnn"), str(command)]

    def test_a_signal_reaches_the_command(self):
        program = (
            "import signal, sys, time\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))\n"
            "print('ready', flush=True)\n"
            "time.sleep(60)"
        )
        command = [ENTER, "python3", "-c", program]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 42

    @pytest.mark.parametrize(
        ("arguments", "given", "expected"),
        [
            ([], None, len(os.sched_getaffinity(0))),
            ([], "3", 3),
            (["mpirun", "-n", "2"], None, 1),
            (["mpirun", "-n", "2"], "3", 3),
        ],
    )
    def test_gives_a_rank_one_thread_and_a_serial_run_all_cores(
        self, monkeypatch, arguments, given, expected
    ):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        # The words after the program are what would be run, so that no ranks need be started.
        done = run(ENTER, "sh", "-c", "echo $OMP_NUM_THREADS", *arguments)
        assert done.stdout == f"{expected}\n"

    def test_starts_mpi_ranks(self):
        program = "from mpi4py import MPI; import os; os.write(1, b'%d\\n' % MPI.COMM_WORLD.size)"
        # Without the variables of the MPI job that this test may itself be part of.
        outer = ("OMPI_", "PMIX_", "PRTE_", "PMI_")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(outer)}
        command = [ENTER, "mpirun", "-n", "3", "python3", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.stdout.split() == ["3", "3", "3"]

    def test_without_a_command_says_how_to_use_it(self):
        done = run(ENTER)
        assert done.returncode == 2
        assert done.stderr == "fem-dnn: usage: environment/enter CMD [ARG...]\n"

    def test_names_a_wrong_setting(self):
        done = run(ENTER, "true", env={"FEM_DNN_ENVIRONMENT": "hots"})
        assert done.returncode == 1
        assert done.stderr == (
            "fem-dnn: FEM_DNN_ENVIRONMENT=hots is not known; allowed: host, private, or unset\n"
        )


class TestHost:
    def test_this_python_has_all_that_pyproject_asks_for(self):
        required = host.requirements()
        assert {*host.COMPILED} <= {*required}
        assert required["fenics-dolfinx"] == ">=0.9,<0.12"
        assert host.unmet(required) == []

    @pytest.mark.parametrize(
        ("version", "clauses", "expected"),
        [
            ("0.9.0", ">=0.9,<0.12", True),
            ("0.12.0.post1", ">=0.9,<0.12", False),
            ("0.5.2", ">=0.9,<0.12", False),
            ("0.10.0", ">=0.9,<0.12", True),  # numbers, not text
            ("3.10.1+dfsg1", ">=3.9", True),
            ("1.10.14", ">=2", False),
            ("1.0", "", True),
        ],
    )
    def test_compares_versions_as_numbers(self, version, clauses, expected):
        assert host.satisfied(version, clauses) is expected

    def test_names_what_is_absent_or_too_old(self):
        required = {"numpy": ">=1000", "no-such-project": "", "scipy": ""}
        assert host.unmet(required) == ["numpy>=1000", "no-such-project"]

    def test_a_python_that_lacks_nothing_is_used_as_it_is(self, tmp_path):
        assert host.prefix(tmp_path, missing=[]) == Path(sys.prefix)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("release", "status", "words"),
        [("0.5.2", 3, "fem-dnn needs >=0.9,<0.12"), ("0.9.0", 1, "but not slepc4py")],
    )
    def test_says_why_a_dolfinx_will_not_do(self, monkeypatch, capsys, release, status, words):
        versions = {"fenics-dolfinx": release, "mpi4py": "4.0", "petsc4py": "3.22.4"}
        monkeypatch.setattr(host, "installed", versions.get)
        assert host.main() == status
        (line,) = capsys.readouterr().out.splitlines()
        assert words in line


# Stands in for Debian's: takes its time, says so in a file, and fails once if told to.
MMDEBSTRAP = """#!/bin/sh
echo started >> "$TRACE"
sleep "${TAKES:-0}"
if [ -e "$TRACE.fail" ]; then rm "$TRACE.fail"; echo "E: no such mirror" >&2; exit 1; fi
for root; do :; done
mkdir -p "$root/etc" "$root/tmp"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's root is a tar of mmdebstrap's")
class TestPrepare:
    @pytest.fixture
    def place(self, tmp_path):
        """A copy of the scripts, an empty cache, and a stand-in for mmdebstrap."""
        shutil.copytree(REPOSITORY / "environment", tmp_path / "environment")
        tool = tmp_path / "bin" / "mmdebstrap"
        tool.parent.mkdir()
        tool.write_text(MMDEBSTRAP)
        tool.chmod(0o755)
        return tmp_path

    def settings(self, place, **more):
        return {
            **os.environ,
            "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
            "TRACE": str(place / "trace"),
            "FEM_DNN_CACHE": str(place / "cache"),
            "FEM_DNN_ENVIRONMENT": "private",
            **more,
        }

    def start(self, place, **more):
        return subprocess.Popen(
            [place / "environment" / "prepare"],
            env=self.settings(place, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def prepare(self, place):
        process = self.start(place)
        out, err = process.communicate()
        return process.returncode, out.strip(), err

    def builds(self, place):
        return (place / "trace").read_text().count("started")

    def roots(self, place):
        return sorted(path.name for path in (place / "cache").glob("root-*") if path.is_dir())

    def test_makes_the_root_once_and_finds_it_quickly(self, place):
        status, root, _ = self.prepare(place)
        assert status == 0
        assert (Path(root) / ".fem-dnn-root").exists()
        start = time.perf_counter()
        assert self.prepare(place) == (0, root, "")
        assert time.perf_counter() - start < 1.0  # 0.02 s on an idle machine
        assert self.builds(place) == 1

    def test_two_at_once_make_one_root(self, place):
        first, second = (self.start(place, TAKES="0.5") for _ in range(2))
        (one, _), (other, _) = first.communicate(), second.communicate()
        assert one == other
        assert (first.returncode, second.returncode) == (0, 0)
        assert self.builds(place) == 1

    def test_a_failure_is_one_line_with_the_log_and_leaves_no_root(self, place):
        (place / "trace.fail").touch()
        status, out, err = self.prepare(place)
        assert (status, out) == (1, "")
        assert "E: no such mirror" in err
        assert err.splitlines()[-1].startswith("fem-dnn: Debian's packages could not be installed")
        assert Path(err.split()[-1]).exists()
        assert self.roots(place) == []
        assert self.prepare(place)[0] == 0

    @pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
    def test_an_interrupted_root_is_never_taken_for_a_good_one(self, place, sign):
        process = self.start(place, TAKES="60")
        while not (place / "trace").exists():
            time.sleep(0.02)
        os.killpg(process.pid, sign)
        process.communicate()
        assert process.returncode != 0
        (place / "cache" / "root-0.partial.1").mkdir()
        status, root, _ = self.prepare(place)
        assert status == 0
        assert self.roots(place) == [Path(root).name]

    def test_a_changed_list_makes_a_new_root_and_a_comment_does_not(self, place):
        packages = place / "environment" / "packages.txt"
        _, root, _ = self.prepare(place)
        packages.write_text("# a comment\n" + packages.read_text())
        assert self.prepare(place)[1] == root
        packages.write_text(packages.read_text() + "python3-pyvista\n")
        assert self.prepare(place)[1] != root
        assert self.builds(place) == 2

    def test_names_what_the_machine_lacks(self, place):
        (place / "bin" / "mmdebstrap").unlink()
        # Nothing but the barest tools, and no package manager.
        tools = "bash env dirname readlink sed uname cat sha256sum cut id mkdir flock rm unshare"
        for tool in [*tools.split(" "), "true"]:
            (place / "bin" / tool).symlink_to(shutil.which(tool))
        done = subprocess.run(
            [shutil.which("bash"), place / "environment" / "prepare"],
            env=self.settings(place, PATH=str(place / "bin")),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("fem-dnn: this machine lacks mmdebstrap")
        assert done.stderr.count("\n") == 1

    def peers(self, place, *arguments):
        command = [place / "environment" / "peers" / "prepare", *arguments]
        return run(*command, env=self.settings(place))

    def test_the_peers_root_is_another_one_with_their_packages(self, place):
        ours = self.prepare(place)[1]
        done = self.peers(place)  # the stand-in's root has no Python to make anything with
        assert len({*self.roots(place)} - {Path(ours).name}) == 1
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("fem-dnn: no virtual environment")
        assert "python3-torch" in done.stderr
        assert self.prepare(place) == (0, ours, "")

    def test_a_failing_peers_root_is_not_taken_for_one(self, place):
        (place / "trace.fail").parent.mkdir(exist_ok=True)
        (place / "trace.fail").touch()
        done = self.peers(place)
        assert done.returncode == 1
        assert "Debian's packages could not be installed" in done.stderr
        assert self.roots(place) == []

    def test_asking_for_existing_peers_makes_nothing(self, place):
        done = self.peers(place, "--existing")
        assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
        assert not (place / "cache").exists()
