"""Packs a linked program and engine into dist/lorry-<version>-py3-none-manylinux_2_28_x86_64.whl.

Same inputs, same bytes: members in a fixed order, with the time SOURCE_DATE_EPOCH (or 1980).
Called by `./dev wheel` with the folder that holds lorry, liblorry_engine.so and (unless built without CUDA
kernels) liblorry_cuda.so, and the packages that they were linked with.
"""

import base64
import hashlib
import os
import re
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAG = "py3-none-manylinux_2_28_x86_64"
PYARROW = "pyarrow==26.0.*"  # the name of libarrow.so carries release and minor release
TORCH = "torch==2.11.*"

# Copied into the program: Debian's packages, whose copyright files travel along.
LINKED_IN = {
    "boost": "libboost1.81-dev",
    "cli11": "libcli11-dev",
    "curl": "libcurl4-openssl-dev",
    "fmt": "libfmt-dev",
    "gcc": "libstdc++6",
    "nlohmann-json": "nlohmann-json3-dev",
    "openssl": "libssl-dev",
    "simdjson": "libsimdjson-dev",
    "spdlog": "libspdlog-dev",
    "utf8proc": "libutf8proc-dev",
    "yaml": "libyaml-dev",
    "xz": "liblzma-dev",
    "zlib": "zlib1g-dev",
    "zstd": "libzstd-dev",
}


def version() -> str:
    return re.search(r'kVersion\[\] = "([^"]+)"', (ROOT / "src/base/version.h").read_text())[1]


def metadata() -> str:
    head = [
        "Metadata-Version: 2.1",
        "Name: lorry",
        f"Version: {version()}",
        "Summary: fine-tunes language models on more data than fits in memory, and serves them",
        "License: Apache-2.0",
        "Requires-Python: >=3.9",
        f"Requires-Dist: {PYARROW}",
        f"Requires-Dist: {TORCH}",
        "Classifier: Operating System :: POSIX :: Linux",
        "Classifier: Programming Language :: C++",
        "Description-Content-Type: text/markdown",
    ]
    return "\n".join(head) + "\n\n" + (ROOT / "README.md").read_text()


def wheel_file() -> str:
    return f"Wheel-Version: 1.0\nGenerator: lorry\nRoot-Is-Purelib: false\nTag: {TAG}\n"


def launcher(packages: Path) -> bytes:
    arrow = next((packages / "pyarrow").glob("libarrow.so.*")).name
    return (
        (ROOT / "packaging/lorry")
        .read_text()
        .replace("@ARROW@", arrow)
        .replace("@PYARROW@", PYARROW)
        .encode()
    )


def licences() -> dict[str, bytes]:
    found = {"LICENSE": (ROOT / "LICENSE").read_bytes()}
    for name, package in LINKED_IN.items():
        found[f"{name}.txt"] = Path(f"/usr/share/doc/{package}/copyright").read_bytes()
    return found


def record_line(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}"


def members(linked: Path, packages: Path) -> dict[str, tuple[bytes, int]]:
    """Name in the archive -> (content, mode)."""
    info, scripts = f"lorry-{version()}.dist-info", f"lorry-{version()}.data/scripts"
    files = {
        "lorry/lorry": ((linked / "lorry").read_bytes(), 0o755),
        "lorry/liblorry_engine.so": ((linked / "liblorry_engine.so").read_bytes(), 0o755),
        f"{scripts}/lorry": (launcher(packages), 0o755),
        f"{info}/METADATA": (metadata().encode(), 0o644),
        f"{info}/WHEEL": (wheel_file().encode(), 0o644),
    }
    for name, text in sorted(licences().items()):
        files[f"{info}/licenses/{name}"] = (text, 0o644)
    cuda = linked / "liblorry_cuda.so"
    if cuda.exists():
        files["lorry/liblorry_cuda.so"] = (cuda.read_bytes(), 0o755)
    record = [record_line(name, data) for name, (data, _) in files.items()] + [f"{info}/RECORD,,"]
    files[f"{info}/RECORD"] = ("\n".join(record).encode() + b"\n", 0o644)
    return files


def write(path: Path, files: dict[str, tuple[bytes, int]]) -> None:
    epoch = max(int(os.environ.get("SOURCE_DATE_EPOCH", 0)), 315532800)
    unfinished = path.with_suffix(".part")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, (data, mode) in files.items():
            entry = zipfile.ZipInfo(name, time.gmtime(epoch)[:6])
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    unfinished.rename(path)


def main() -> None:
    linked, packages, out = Path(sys.argv[1]), Path(sys.argv[2]), ROOT / "dist"
    out.mkdir(exist_ok=True)
    path = out / f"lorry-{version()}-{TAG}.whl"
    write(path, members(linked, packages))
    if not (linked / "liblorry_cuda.so").exists():
        print("this wheel has no CUDA kernels", file=sys.stderr)
    print(path.relative_to(ROOT))
    print(f"{path.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
