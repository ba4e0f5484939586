#!/usr/bin/env bash
# The CUDA kernels on a real GPU, in minutes: their tests, then their rates beside libtorch's.
#
#   bench/gpu/ops.sh pack    here, after ./dev bench has built (or: cmake --build with LORRY_BENCH=ON):
#                            programs, module and the system's libraries that they need, into build/gpu
#   bench/gpu/ops.sh run     on the machine with the GPU, in a copy of this tree with build/gpu; needs a
#                            python3 with torch 2.11, whose libraries are used
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
built=${LORRY_BUILD:-build/release} packed=build/gpu

pack() {
  rm -rf "$packed"
  mkdir -p "$packed"
  cp "$built"/lorry_ops_{test,bench} "$built"/liblorry_{cuda,wrong_version,wrong_torch,wrong_size,no_module}.so "$packed"
  ldd "$packed"/lorry_ops_* | sed -n 's/.* => \(.*\/lib\(fmt\|spdlog\)\.so[^ ]*\) .*/\1/p' | sort -u | xargs -I{} cp {} "$packed"
  du -sh "$packed"
}

run() {
  local torch
  torch=$(python3 -c 'import torch; print(torch.__path__[0])')/lib
  export LD_LIBRARY_PATH=$PWD/$packed:$torch
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  timeout 240 "$packed/lorry_ops_test" --gtest_filter='CudaModule*:OnGpu*:*/cuda_Float:*/cuda_BFloat16:*/cuda_Half' --gtest_brief=1
  timeout 240 "$packed/lorry_ops_bench"
}

case ${1:-} in
  pack | run) "$1" ;;
  *) sed -n '2,8p' "$0"; exit 2 ;;
esac
