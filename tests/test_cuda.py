"""liblorry_cuda.so without a GPU: what it contains, that it loads, and builds without it."""

import os
import struct
import subprocess

import pytest
from conftest import ROOT

BUILT_WITH = next((ROOT / ".venv/lib").glob("python3*/site-packages"), None)
COMPLETE = next((ROOT / ".venv-peers/lib").glob("python3*/site-packages"), None)
ARCHITECTURES = ["75", "80", "86", "89", "90a", "100a", "120"]


@pytest.fixture(scope="module")
def module(lorry_binary):
    path = lorry_binary.parent / "liblorry_cuda.so"
    if not path.exists():
        pytest.skip("built without CUDA kernels")
    return path


def cubins(data, fatbin):
    """Architecture and content of each cubin of a fatbin, by its headers (CUDA 13: version 1)."""
    version, header, size = struct.unpack_from("<HHQ", data, fatbin + 4)
    assert (version, header) == (1, 16)
    at, end = fatbin + header, fatbin + header + size
    while at < end:
        kind, header, size = struct.unpack_from("<HxxIQ", data, at)
        architecture, flags = struct.unpack_from("<IxxxxxxxxQ", data, at + 28)
        assert kind == 2, "machine code, not PTX: nothing is compiled on the user's machine"
        specific = "a" if flags >> 20 & 1 else ""
        yield f"{architecture}{specific}", data[at + header : at + header + size]
        at += header + size


def test_every_file_of_kernels_is_there_for_all_architectures(module):
    data = module.read_bytes()
    found = [at for at in range(0, len(data), 8) if data[at : at + 4] == b"\x50\xed\x55\xba"]
    sources = list((ROOT / "src/ops").glob("*_cuda.cu"))
    assert len(found) == len(sources)
    for fatbin in found:
        code = dict(cubins(data, fatbin))
        assert list(code) == ARCHITECTURES
        assert all(len(cubin) > 1000 for cubin in code.values())


def test_module_names_no_cuda_library(module):
    dynamic = subprocess.run(
        ["readelf", "-W", "-d", "--dyn-syms", module], check=True, capture_output=True, text=True
    ).stdout
    needed = {line.split("[")[1].split("]")[0] for line in dynamic.splitlines() if "NEEDED" in line}
    system = {"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "ld-linux-x86-64.so.2"}
    assert needed - system == {"libtorch_cuda.so", "libc10_cuda.so", "libtorch_cpu.so", "libc10.so"}
    symbols = [line.split() for line in dynamic.splitlines() if " FUNC " in line or " NOTYPE " in line]
    wanted = [fields[7] for fields in symbols if len(fields) > 7 and fields[6] == "UND"]
    assert wanted
    assert not [name for name in wanted if name.startswith("cu")]


def run_tests(binary, pattern, torch):
    done = subprocess.run(
        [binary.parent / "lorry_ops_test", f"--gtest_filter={pattern}"],
        env={**os.environ, "LD_LIBRARY_PATH": str(torch / "torch/lib")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_module_loads_beside_a_complete_libtorch_cuda(lorry_binary, module):
    if COMPLETE is None:
        pytest.skip("no .venv-peers")
    out = run_tests(lorry_binary, "CudaModule.LoadsBeside*:CudaModule.SaysWhy*", COMPLETE)
    assert "[       OK ] CudaModule.LoadsBesideLibtorchCuda" in out


def test_loader_says_why_there_is_no_cuda(lorry_binary):
    out = run_tests(lorry_binary, "CudaModule.LoadsBeside*", BUILT_WITH)
    if "[       OK ]" in out:
        pytest.skip("the libraries of CUDA are on this machine")
    assert "libtorch_cuda does not load" in out


@pytest.mark.parametrize("why", ["absent", "broken", "off"])
def test_build_without_nvcc_goes_on(tmp_path, why):
    """Configured anew with no compiler, one that fails, or none wanted: all but the module is built."""
    venv = tmp_path / "venv"
    flags = [f"-DLORRY_CUDA_VENV={venv}"]
    expected = f"no nvcc in {venv}"
    if why == "broken":
        nvcc = venv / "lib/python3.11/site-packages/nvidia/cu13/bin/nvcc"
        nvcc.parent.mkdir(parents=True)
        nvcc.write_text("#!/bin/sh\necho it is another machine >&2\nexit 9\n")
        nvcc.chmod(0o755)
        expected = f"{nvcc} does not run (9) it is another machine"
    elif why == "off":
        flags, expected = ["-DLORRY_CUDA=OFF"], "LORRY_CUDA is off"
    build = tmp_path / "build"
    build.mkdir()
    (build / "liblorry_cuda.so").touch()
    configured = subprocess.run(
        ["cmake", "-S", ROOT, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *flags],
        capture_output=True,
        text=True,
    )
    assert configured.returncode == 0, configured.stderr
    said = [line for line in configured.stderr.splitlines() if "CUDA" in line]
    assert len(said) == 1 and said[0].startswith(f"building without CUDA kernels: {expected}")
    assert not (build / "liblorry_cuda.so").exists()
    ninja = ["ninja", "-C", build, "-n"]
    plan = subprocess.run(ninja, check=True, capture_output=True, text=True).stdout
    assert "lorry_engine" in plan and "lorry_ops_test" in plan
    assert "lorry_cuda" not in plan and "_cuda.cu" not in plan
