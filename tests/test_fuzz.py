"""The fuzz targets under ASan and UBSan: over their corpora, then on their own for a while, two at a
time. Needs clang and its run-time library; what they find is kept in build/fuzz/found between runs.
A search begins with the same seed each time, so that what it finds is found again; `./dev soak SEED`
searches elsewhere, and longer."""

import concurrent.futures
import pathlib
import shutil
import subprocess

import pytest
from conftest import SEED, SOAK, under_small_parent

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "fuzz"
TARGETS = ("tokenizer_json", "tokenizer_config", "chat_template", "encode", "data_file")
SECONDS = 300 if SOAK else 3  # for a target


def build():
    if not shutil.which("clang++"):
        pytest.skip("no clang++: install clang and libclang-rt-dev to fuzz")
    configured = subprocess.run(["cmake", "--preset", "fuzz"], cwd=ROOT, capture_output=True, text=True)
    assert configured.returncode == 0, configured.stderr
    names = [f"lorry_fuzz_{target}" for target in TARGETS]
    made = subprocess.run(
        ["cmake", "--build", BUILD, "-j2", "--target", *names], capture_output=True, text=True
    )
    if "libclang_rt" in made.stdout + made.stderr:
        pytest.skip("no run-time library of clang: install libclang-rt-dev to fuzz")
    assert made.returncode == 0, made.stdout[-3000:]


def run(target, artifacts):
    """One process over the corpora, and then on its own; an input that breaks it goes to `artifacts`."""
    corpus, found = ROOT / "fuzz" / "corpus" / target, BUILD / "found" / target
    found.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={SECONDS}", "-timeout=20", f"-seed={SEED + 1}"]
    search = [BUILD / f"lorry_fuzz_{target}", *limits, f"-artifact_prefix={artifacts}/", found, corpus]
    return subprocess.run(
        under_small_parent(search),  # libFuzzer stops at a peak of 2 GB
        capture_output=True,
        text=True,
        errors="replace",
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    build()
    artifacts = tmp_path_factory.mktemp("artifacts")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(zip(TARGETS, pool.map(lambda target: run(target, artifacts), TARGETS), strict=True))


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_breaks_what_strangers_hand_in(runs, target):
    done = runs[target]
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done " in done.stderr, done.stderr[-4000:]  # it ran to its end
