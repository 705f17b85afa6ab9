"""The examples of docs/clusters.md: what can be known of them without a cluster."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from fem_dnn.case.commands import Solver

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "clusters.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("script", blocks("bash"))
def test_slurm_scripts(script: str) -> None:
    assert script.startswith("#!/bin/bash\n#SBATCH")
    checked = subprocess.run(
        ["bash", "-n"], input=script, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert "OMP_NUM_THREADS=1" in script and "--cpu-bind=cores" in script


def test_mpi_job() -> None:
    """Ranks fill the slots, slots the cores, and both kinds of pod see the same files and keys."""
    (text,) = blocks("yaml")
    job = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    replicas = job["spec"]["mpiReplicaSpecs"]
    launcher, worker = (
        replicas[name]["template"]["spec"]["containers"][0] for name in ("Launcher", "Worker")
    )
    slots, arguments = job["spec"]["slotsPerWorker"], launcher["args"]
    assert int(arguments[arguments.index("-n") + 1]) == slots * replicas["Worker"]["replicas"]
    assert worker["resources"]["limits"]["cpu"] == str(slots)
    assert worker["resources"]["requests"] == worker["resources"]["limits"]
    assert launcher["volumeMounts"][0] == worker["volumeMounts"][0]
    for name in ("Launcher", "Worker"):
        pod = replicas[name]["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == volumes
    home = job["spec"]["sshAuthMountPath"]
    assert f"HostKey {home}/id_rsa" in blocks("dockerfile")[0]


def test_what_it_names_exists() -> None:
    for key in re.findall(r"`solver\.(\w+)`", PAGE):
        assert key in Solver.model_fields


def test_what_it_says_of_groups_is_in_the_record() -> None:
    assert "groups of samples gain more per sweep than rows do" in PAGE
    record = json.loads((DOCS / "parallel.json").read_text())
    for row in record["rows"]:
        if row["nodes"] < row["samples"]:
            assert row["samples gradient speedup"] > row["width gradient speedup"]
