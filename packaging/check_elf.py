"""Fails unless a linked program and engine run wherever manylinux_2_28 says they do.

    python3 check_elf.py FOLDER SITE_PACKAGES

FOLDER holds lorry, liblorry_engine.so and, unless built without CUDA kernels, liblorry_cuda.so;
SITE_PACKAGES the pyarrow and torch that they were linked with. Looked at: the versions of the symbols that they want, the libraries that they name, the
folders where they look, and that each symbol is somebody's.
"""

import re
import subprocess
import sys
from pathlib import Path

NEWEST = {
    "GLIBC": (2, 28),
    "GLIBCXX": (3, 4, 24),
    "CXXABI": (1, 3, 11),
    "GCC": (7, 0, 0),
    "GOMP": (4, 0),
    "OMP": (1, 0),
}
SYSTEM = {
    "libc.so.6",
    "libm.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libstdc++.so.6",
    "ld-linux-x86-64.so.2",
}
PACKAGES = {
    "libarrow.so": "pyarrow",
    "libparquet.so": "pyarrow",
    "libtorch_cpu.so": "torch/lib",
    "libc10.so": "torch/lib",
    "libgomp.so": "torch/lib",
}
# Of liblorry_cuda.so alone: the engine also runs where these are not. No library of CUDA itself, so
# that one module serves all its releases.
CUDA_PACKAGES = {"libtorch_cuda.so": "torch/lib", "libc10_cuda.so": "torch/lib"}
CUDA_MODULE = "liblorry_cuda.so"
RPATH = "$ORIGIN/../pyarrow:$ORIGIN/../torch/lib"


def readelf(*arguments: object) -> str:
    return subprocess.run(
        ["readelf", "-W", *map(str, arguments)], check=True, capture_output=True, text=True
    ).stdout


def symbols(path: Path) -> tuple[set[str], set[str]]:
    """What a file wants, and what it offers; "name@VERSION" where there is one."""
    wants, offers = set(), set()
    for line in readelf("--dyn-syms", path).splitlines():
        fields = line.split()
        if len(fields) < 8 or not fields[0].rstrip(":").isdigit() or fields[4] == "LOCAL":
            continue
        name = fields[7].replace("@@", "@")
        if fields[6] != "UND":
            offers.add(name)
        elif fields[4] != "WEAK":
            wants.add(name)
    return wants, offers


def too_new(path: Path) -> list[str]:
    faults = []
    for symbol in re.findall(r"\S+@\S+", readelf("--dyn-syms", path)):
        name, version = re.split("@+", symbol)
        family, _, digits = version.rpartition("_")
        if (
            family not in NEWEST
            or not re.fullmatch(r"[\d.]+", digits)
            or tuple(map(int, digits.split("."))) > NEWEST[family]
        ):
            faults.append(f"{path.name}: {name} is of {version}")
    return faults


def misplaced(path: Path) -> list[str]:
    """Libraries and folders that no other machine has."""
    dynamic = readelf("-d", path)
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    packages = {*PACKAGES, *(CUDA_PACKAGES if path.name == CUDA_MODULE else ())}
    faults = [
        f"{path.name}: needs {name}"
        for name in needed
        if name not in SYSTEM and re.sub(r"\.\d+$", "", name) not in packages
    ]
    if re.findall(r"\((RPATH|RUNPATH)\).*\[(.*)\]", dynamic) != [("RPATH", RPATH)]:
        faults.append(f"{path.name}: its RPATH is not {RPATH}")
    if "TEXTREL" in dynamic:
        faults.append(f"{path.name}: has relocations in its code")
    return faults


def nobodys(path: Path, others: list[Path]) -> list[str]:
    """Wanted symbols without a version (those with one were found by the linker) that nobody offers."""
    offered = set().union(*(symbols(other)[1] for other in others))
    names = {name.split("@")[0] for name in offered}
    return [
        f"{path.name}: nobody offers {name}"
        for name in sorted(symbols(path)[0])
        if "@" not in name and name not in names
    ]


def check(folder: Path, packages: Path) -> list[str]:
    program, engine = folder / "lorry", folder / "liblorry_engine.so"
    arrow = [
        next((packages / "pyarrow").glob(f"{name}.*")) for name in ("libarrow.so", "libparquet.so")
    ]
    names = ("libtorch_cpu.so", "libc10.so", "libgomp.so.1")
    torch = [packages / "torch/lib" / name for name in names]
    faults = nobodys(program, arrow) + nobodys(engine, [program, *arrow, *torch])
    files = [program, engine]
    cuda = folder / CUDA_MODULE
    if cuda.exists():
        files.append(cuda)
        torch += [packages / where / name for name, where in CUDA_PACKAGES.items()]
        faults += nobodys(cuda, torch)
    for path in files:
        faults += too_new(path) + misplaced(path)
    return faults


def main() -> None:
    faults = check(Path(sys.argv[1]), Path(sys.argv[2]))
    print("\n".join(faults), file=sys.stderr, end="\n" if faults else "")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
