"""`lorry doctor`: one line a finding. Each trouble is made here (a false NVML, a wrong key, a full
disk, ...) and must be the one FAIL line of its report."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time

import pytest
from conftest import ROOT
from hub_server import HubServer
from s3 import s3  # noqa: F401 (a fixture)

# Nothing of the machine's own: no Hub, no role, no profile.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    "AWS_CONFIG_FILE": "/nonexistent",
    "no_proxy": "127.0.0.1,localhost",
}


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def doctor(lorry, tmp_path):
    """`doctor(*flags, code=..., env=...)`: the findings as {subject: (health, line)}, and lines."""

    def run(*flags, code=0, env=None, directory=tmp_path):
        flags = flags if "--bucket" in flags else (*flags, "--bucket", tmp_path / "bucket")
        before = lorry.directory
        lorry.directory = directory
        try:
            done = lorry("doctor", *flags, code=code, env={**QUIET, **(env or {})}, timeout=120)
        finally:
            lorry.directory = before
        return done.stdout.splitlines()

    return run


def failures(lines):
    assert all(line[:6] in ("ok    ", "warn  ", "FAIL  ") for line in lines), lines
    return [line for line in lines if line.startswith("FAIL")]


def only_failure(lines, subject):
    (line,) = failures(lines)
    assert line.split()[1] == subject, line
    return line


def line_of(lines, subject):
    (line,) = [line for line in lines if line.split()[1] == subject]
    return line


# ---- all well ------------------------------------------------------------------------------------


def test_a_machine_that_is_well_is_told_so_and_what_it_has(doctor):
    lines = doctor("--device", "cpu")
    assert failures(lines) == []
    subjects = [line.split()[1] for line in lines]
    for subject in ("gpu", "libtorch", "arrow", "cpu", "memory", "disk", "bucket", "hub"):
        assert subject in subjects
    assert "2.11" in line_of(lines, "libtorch") and "liblorry_engine.so" in line_of(lines, "libtorch")
    assert f"of {os.cpu_count()} cores usable" in line_of(lines, "cpu")


def test_cores_that_the_process_may_not_use_are_not_counted(lorry, tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    command = ["taskset", "-c", str(cores[0]), lorry.binary, "doctor", "--bucket", str(tmp_path)]
    done = subprocess.run(command, env={**lorry.env, **QUIET}, capture_output=True, text=True)
    assert "1 of " in line_of(done.stdout.splitlines(), "cpu")


def test_json_says_the_same(lorry, tmp_path):
    report = lorry.json("doctor", "--bucket", tmp_path, "--device", "cpu", "--json", env=QUIET)
    assert report["failed"] == 0
    assert {"subject", "health", "text"} <= set(report["findings"][0])
    assert {finding["health"] for finding in report["findings"]} <= {"ok", "warn"}


def test_a_local_bucket_is_left_as_it_was(doctor, tmp_path):
    bucket = tmp_path / "bucket"
    assert "not there yet" in line_of(doctor("--device", "cpu"), "bucket")
    assert not bucket.exists()
    bucket.mkdir()
    assert "writes, reads back, removes" in line_of(doctor("--device", "cpu"), "bucket")
    assert [path for path in bucket.rglob("*") if path.is_file()] == []


# ---- GPU and driver ------------------------------------------------------------------------------

NVML = r"""
#include <string.h>
#include <unistd.h>
struct memory { unsigned long long total, free, used; };
int nvmlInit_v2(void) { if (HANG) sleep(1000); if (CRASH) *(volatile int*)0 = 1; return INIT; }
int nvmlShutdown(void) { return 0; }
const char* nvmlErrorString(int code) { return "Driver/library version mismatch"; }
int nvmlSystemGetDriverVersion(char* text, unsigned n) { strncpy(text, DRIVER, n); return 0; }
int nvmlDeviceGetCount_v2(unsigned* n) { *n = GPUS; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void** device) { *device = (void*)(long)(i + 1); return 0; }
int nvmlDeviceGetName(void* device, char* text, unsigned n) { strncpy(text, "NVIDIA Test", n); return 0; }
int nvmlDeviceGetMemoryInfo(void* device, struct memory* m) {
  m->total = 80ull << 30; m->free = 79ull << 30; m->used = 1ull << 30; return 0; }
int nvmlDeviceGetCudaComputeCapability(void* device, int* major, int* minor) {
  *major = 9; *minor = 0; return 0; }
"""


@pytest.fixture
def nvml(tmp_path):
    """The environment of a machine whose NVML says what it is told to."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make a false libnvidia-ml.so.1 with")

    def make(driver="580.95.05", gpus=1, init=0, hang=0, crash=0):
        source = tmp_path / "nvml.c"
        source.write_text(NVML)
        defines = {"DRIVER": f'"{driver}"', "GPUS": gpus, "INIT": init, "HANG": hang, "CRASH": crash}
        flags = [f"-D{name}={value}" for name, value in defines.items()]
        library = tmp_path / "nvml" / "libnvidia-ml.so.1"
        library.parent.mkdir(exist_ok=True)
        subprocess.run([compiler, "-w", "-shared", "-fPIC", *flags, "-o", library, source], check=True)
        paths = [str(library.parent), os.environ.get("LD_LIBRARY_PATH", "")]
        return {"LD_LIBRARY_PATH": ":".join(filter(None, paths))}

    return make


def has_gpu():
    return pathlib.Path("/dev/nvidiactl").exists()


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
def test_no_gpu_is_a_warning_and_a_failure_where_one_is_asked_for(doctor):
    lines = doctor()
    assert failures(lines) == [] and line_of(lines, "gpu").startswith("warn")
    assert "no NVIDIA GPU" in only_failure(doctor("--device", "cuda", code=1), "gpu")


def test_a_driver_that_is_too_old_for_libtorch(doctor, nvml):
    lines = doctor(env=nvml(driver="515.65.01"), code=1)
    assert "515.65.01 is too old for libtorch 2.11" in only_failure(lines, "driver")
    assert "NVIDIA Test" in line_of(lines, "gpu")
    assert failures(doctor("--device", "cpu", env=nvml(driver="515.65.01"))) == []


def test_a_driver_that_hangs_or_crashes_takes_nothing_with_it(doctor, nvml):
    start = time.monotonic()
    lines = doctor("--timeout", 2, env=nvml(hang=1), code=1)
    assert "restart the machine" in only_failure(lines, "gpu")
    assert time.monotonic() - start < 30
    assert "Segmentation fault" in only_failure(doctor(env=nvml(crash=1), code=1), "gpu")


def test_a_driver_that_does_not_answer_is_told_in_its_own_words(doctor, nvml):
    line = only_failure(doctor(env=nvml(init=18), code=1), "gpu")
    assert "Driver/library version mismatch" in line


def test_hidden_gpus_are_named_as_the_cause(doctor, nvml):
    env = {**nvml(gpus=2), "CUDA_VISIBLE_DEVICES": ""}
    line = only_failure(doctor("--device", "cuda", env=env, code=1), "gpu")
    assert "CUDA_VISIBLE_DEVICES" in line


# ---- libraries -----------------------------------------------------------------------------------


def test_no_engine(doctor):
    env = {"LORRY_ENGINE": "/nonexistent/liblorry_engine.so"}
    line = only_failure(doctor("--device", "cpu", env=env, code=1), "libtorch")
    assert "/nonexistent/liblorry_engine.so" in line
    assert failures(doctor("--data-only", env=env)) == []


def test_an_engine_whose_libtorch_is_not_there(doctor, tmp_path):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make an engine with")
    (tmp_path / "x.c").write_text("int x;")
    torch, engine = tmp_path / "libtorch_cpu.so", tmp_path / "liblorry_engine.so"
    build = [compiler, "-shared", "-fPIC", "-w", tmp_path / "x.c", "-o"]
    subprocess.run([*build, torch, "-Wl,-soname,libtorch_not_here.so"], check=True)
    subprocess.run([*build, engine, "-Wl,--no-as-needed", torch], check=True)
    line = only_failure(
        doctor("--device", "cpu", env={"LORRY_ENGINE": str(engine)}, code=1), "libtorch"
    )
    assert "libtorch_not_here.so" in line


# ---- buckets -------------------------------------------------------------------------------------


def test_an_s3_bucket_that_is_well_and_left_as_it_was(doctor, s3):  # noqa: F811
    uri = s3.make_bucket("well")
    lines = doctor("--bucket", f"{uri}/some/prefix", "--device", "cpu", env=s3.env())
    assert failures(lines) == []
    line = line_of(lines, "bucket")
    assert s3.url in line and "keys from the environment" in line and "ms a request" in line
    assert "within 2 s" in line_of(lines, "clock")
    assert [path for path in (s3.directory / "well").rglob("*") if path.is_file()] == []
    assert "testtest" not in "".join(lines)


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": "wrongsecret"}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "AWS_SECRET_ACCESS_KEY is not"),
        ({"AWS_ENDPOINT_URL_S3": "not-a-url"}, "AWS_ENDPOINT_URL_S3"),
    ],
)
def test_what_is_wrong_with_the_keys_is_named(doctor, s3, wrong, named):  # noqa: F811
    uri = s3.make_bucket("keys")
    lines = doctor("--bucket", uri, "--device", "cpu", env={**s3.env(), **wrong}, code=1)
    assert named in only_failure(lines, "bucket")
    assert "wrongsecret" not in "".join(lines) and "testtest" not in "".join(lines)


def test_a_bucket_that_is_not_there(doctor, s3):  # noqa: F811
    lines = doctor("--bucket", "s3://nothing-here", "--device", "cpu", env=s3.env(), code=1)
    assert "there is no bucket nothing-here" in only_failure(lines, "bucket")


def test_a_bucket_that_may_only_be_read(doctor, s3, tmp_path):  # noqa: F811
    from s3 import S3

    class ReadOnly(S3):
        options = ("--readonly",)

    server = ReadOnly(tmp_path / "s3")
    try:
        uri = server.make_bucket("locked")
        lines = doctor("--bucket", uri, "--device", "cpu", env=server.env(), code=1)
        assert "writing fails" in only_failure(lines, "bucket")
    finally:
        server.stop()


def test_an_endpoint_that_refuses_and_one_that_is_silent(doctor, s3, free_port):  # noqa: F811
    refused = s3.env(url=f"http://127.0.0.1:{free_port}")
    line = only_failure(doctor("--bucket", "s3://b", "--device", "cpu", env=refused, code=1), "bucket")
    assert str(free_port) in line and "AWS_ENDPOINT_URL_S3" in line
    with socket.socket() as hole:  # connects, and then nothing
        hole.bind(("127.0.0.1", 0))
        hole.listen()
        silent = s3.env(url=f"http://127.0.0.1:{hole.getsockname()[1]}")
        start = time.monotonic()
        flags = ("--bucket", "s3://b", "--device", "cpu", "--timeout", 2)
        only_failure(doctor(*flags, env=silent, code=1), "bucket")
        assert time.monotonic() - start < 30, "the limit of 2 s is not obeyed"


def test_an_endpoint_that_is_no_s3_server(doctor, s3, hub):  # noqa: F811
    env = s3.env(url=hub.url)
    line = only_failure(doctor("--bucket", "s3://bkt", "--device", "cpu", env=env, code=1), "bucket")
    assert "not as an S3 server does" in line and hub.url in line


@contextlib.contextmanager
def mounted(directory, options):
    directory.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs root, and the right to mount a tmpfs")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_full_disk(doctor, tmp_path):
    with mounted(tmp_path / "small", "size=1m") as small:
        (small / "filler").write_bytes(b"x" * (1 << 20))
        (small / "bucket").mkdir()
        line = only_failure(doctor("--device", "cpu", env={"TMPDIR": str(small)}, code=1), "disk")
        assert "full" in line and str(small) in line
        lines = doctor("--bucket", small / "bucket", "--device", "cpu", code=1)
        assert str(small / "bucket") in only_failure(lines, "disk")


def test_a_local_bucket_that_cannot_be_written_to(doctor, tmp_path):
    with mounted(tmp_path / "fixed", "ro,size=1g") as fixed:
        lines = doctor("--bucket", fixed, "--device", "cpu", code=1)
        assert str(fixed) in failures(lines)[0]
        assert len(failures(lines)) == 1


# ---- the Hub -------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path):
    with HubServer(tmp_path / "hub") as server:
        server.add_token("hf_right", name="someone")
        yield server


def test_the_hub_and_the_token(doctor, hub, tmp_path):
    def look(token=None, code=0):
        return doctor("--device", "cpu", env=hub.environment(tmp_path, token), code=code)

    assert "no token" in line_of(look(), "hub")
    assert "token (from HF_TOKEN) of someone" in line_of(look("hf_right"), "hub")
    lines = look("hf_wrong", code=1)
    assert "refuses the token" in only_failure(lines, "hub")
    assert "hf_wrong" not in "".join(lines)


def test_a_hub_that_cannot_be_reached_is_a_warning(doctor, free_port):
    env = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{free_port}"}
    lines = doctor("--device", "cpu", env=env)
    assert line_of(lines, "hub").startswith("warn") and failures(lines) == []


# ---- settings ------------------------------------------------------------------------------------


def test_settings_are_named_with_their_places_and_never_shown(doctor, lorry, tmp_path):
    (tmp_path / ".env").write_text("BUCKET_NAME=b\nHF_TOKEN=hf_secret\nLORRY_BATCH_SISE=3\n")
    env = {"LORRY_LEARNING_RATES": "1", "LORRY_SEED": "5"}
    lines = doctor("--device", "cpu", env=env)
    text = "\n".join(line for line in lines if line.split()[1] == "settings")
    assert "from .env: BUCKET_NAME, HF_TOKEN" in text and "LORRY_SEED" in text
    assert "LORRY_BATCH_SISE (.env line 3)" in text and "did you mean LORRY_BATCH_SIZE?" in text
    assert "did you mean LORRY_LEARNING_RATE?" in text
    assert "hf_secret" not in "\n".join(lines)
    report = json.loads("\n".join(doctor("--device", "cpu", "--json", env=env)))
    assert report["settings"]["HF_TOKEN"] == ".env line 2"


def test_every_verb_says_which_names_it_does_not_know(lorry, tmp_path):
    done = lorry("status", "--bucket", tmp_path, env={"LORRY_BATCH_SISE": "3"})
    assert "LORRY_BATCH_SISE" in done.stderr and "LORRY_BATCH_SIZE" in done.stderr
    known = lorry("status", "--bucket", tmp_path, env={"LORRY_BATCH_SIZE": "3"})
    assert "LORRY_BATCH_SIZE" not in known.stderr, "another verb reads it"
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.cc"))
    read = set(re.findall(r'getenv\("(LORRY_[A-Z_]+)"\)', sources))
    assert "LORRY_PROFILE_STEP" in read
    done = lorry("status", "--bucket", tmp_path, env=dict.fromkeys(read, "1"))
    assert "does not read" not in done.stderr
