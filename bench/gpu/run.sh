#!/usr/bin/env bash
# Measures lorry on this machine: tests of the kernels, their rates, training, serving, and the peers
# whose packages are here. Needs python3 with torch 2.11; nothing is installed, and nothing fetched.
#
#   ./run.sh [--device cuda|cpu] [--small] [--minutes 5] [--parts NAME,...] [--out FOLDER]
#
# RESULT lines come last, and are in FOLDER/results.txt (default: out, beside this script) with the
# logs. docs/benchmarks.md, "On a GPU", says more. PYTHON names another python3, LORRY_GPU_WORK
# another folder than /tmp/lorry-gpu for what is made on the way (60 GB for the 8 B model).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=${LORRY_GPU_WORK:-/tmp/lorry-gpu} python=${PYTHON:-python3}
torch=$("$python" -c 'import torch; print(torch.__path__[0])')
mkdir -p "$work"
tar -xJf "$here/lorry.tar.xz" -C "$work"
# Packages of the peers, if someone put them beside: an unpacked site folder as an archive.
[ ! -f "$here/site.tar.xz" ] || { mkdir -p "$work/site" && tar -xJf "$here/site.tar.xz" -C "$work/site"; }
export LD_LIBRARY_PATH=$work/lib:$torch/lib
exec "$python" "$work/run.py" --work "$work" --out "$here/out" "$@"
