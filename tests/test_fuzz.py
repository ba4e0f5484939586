"""The fuzz targets over their corpora, under ASan and UBSan. Needs clang and its run-time library;
the build in build/fuzz is kept between runs. LORRY_FUZZ_SECONDS says how long each one searches on
top of its corpus (default 0: the corpus alone)."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "fuzz"
TARGETS = ("tokenizer_json", "tokenizer_config", "chat_template", "encode")
SECONDS = int(os.environ.get("LORRY_FUZZ_SECONDS", "0"))


@pytest.fixture(scope="module")
def built():
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


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_runs_clean(built, tmp_path, target):
    corpus = ROOT / "fuzz" / "corpus" / target
    assert any(corpus.iterdir())
    limits = [f"-max_total_time={SECONDS}"] if SECONDS else ["-runs=0"]
    done = subprocess.run(
        [BUILD / f"lorry_fuzz_{target}", *limits, f"-artifact_prefix={tmp_path}/", tmp_path, corpus],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
