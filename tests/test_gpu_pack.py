"""bench/gpu in its reduced form: the folder is made, and its script runs to the end on a CPU, with
nothing but a python3 that has torch."""

import json
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("torch")
PARTS = "machine,tests,ops,train,serve,profile"


@pytest.fixture(scope="module")
def folder(lorry_binary, tmp_path_factory):
    build, folder = lorry_binary.parent, tmp_path_factory.mktemp("pack") / "gpu"
    if not (build / "lorry_ops_test").exists():
        pytest.skip("no lorry_ops_test in this build")
    command = [sys.executable, ROOT / "bench/gpu/pack.py", build, folder]
    done = subprocess.run(command, env={**os.environ, "LORRY_GPU_XZ": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def measured(folder, tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LORRY", "PYTHON"))}
    env |= {"PYTHON": sys.executable, "LORRY_GPU_WORK": str(work)}
    command = [folder / "run.sh", "--device", "cpu", "--small", "--minutes", "10", "--parts", PARTS]
    done = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return work, done.stdout


def test_the_folder_fits_what_may_be_carried_and_holds_no_loose_files(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["lorry.tar.xz", "run.sh"]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 60_000_000


def test_every_part_gives_its_results_at_the_end(folder, measured):
    _, out = measured
    at_the_end = out.split("\n----\n")[-1]
    results = {name: float(value) for name, value in re.findall(r"^RESULT (\S+) (\S+) \S+$", at_the_end, re.M)}
    assert results["tests.passed"] > 0 or "built without CUDA kernels" in (folder / "out/tests.log").read_text()
    assert results["tests.failed"] == 0
    for name in ("train.small.packed", "train.small.rows", "serve.small.1", "serve.small.4"):
        assert results[f"{name}.rate"] > 0
    assert "FAILED" not in at_the_end and "SKIPPED" not in at_the_end
    assert (folder / "out/results.txt").read_text() == at_the_end


def test_a_profile_names_the_operators_of_a_step(folder, measured):
    table = (folder / "out/profile.small.log").read_text()
    assert "one step in" in table and "aten::addmm" in table
    assert json.loads((folder / "out/profile.small.json").read_text())["traceEvents"]


def test_no_library_is_taken_from_the_repository(measured):
    work, _ = measured
    torch = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.__path__[0])"], capture_output=True, text=True
    ).stdout.strip()
    env = {**os.environ, "LD_LIBRARY_PATH": f"{work}/lib:{torch}/lib"}
    for name in ("lorry", "liblorry_engine.so"):
        out = subprocess.run(["ldd", work / "bin" / name], env=env, capture_output=True, text=True).stdout
        taken = [path for path in re.findall(r"=> (/\S+)", out) if path.startswith(str(ROOT))]
        assert not [path for path in taken if not path.startswith(torch) and "/nvidia/" not in path]
