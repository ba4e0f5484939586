#!/usr/bin/env bash
# Puts lorry on a machine, in ~/lorry-env: the wheel, and the libtorch that fits the machine's driver.
# Run again it does nothing, unless the wheel is another one. docs/sky.md tells more.
#
#   bash sky/setup.sh               program, engine and libtorch
#   bash sky/setup.sh --data-only   program and Arrow, for machines that import and tokenize
#
# The wheel: $LORRY_WHEEL (a path, https://..., s3://bucket/key), else the newest dist/lorry-*.whl.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=$HOME/lorry-env
started=$SECONDS

say() { printf 'setup.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Runs a command; what it says is shown if it fails, with the sentence $1 as the last line.
try() {
  local sentence=$1 log=$scratch/log
  shift
  "$@" >"$log" 2>&1 || { tail -n 12 "$log" >&2; die "$sentence"; }
}

# ---- the wheel -----------------------------------------------------------------------------------

# Sets `wheel` to a file.
find_wheel() {
  local url=${LORRY_WHEEL:-} newest
  newest=$(cd "$repository" && ls -v dist/lorry-*.whl 2>/dev/null | tail -n 1) || true
  case $url in
    '') [ -n "$newest" ] || die "there is no wheel: make dist/lorry-*.whl with ./dev wheel before you launch, or name one in LORRY_WHEEL (https://..., s3://bucket/key)"
        wheel=$repository/$newest ;;
    *://*) wheel=$scratch/$(basename "${url%%\?*}")
        python3 "$repository/sky/fetch.py" "$url" "$wheel" || exit 1 ;;
    *) wheel=$(cd "$repository" && realpath "$url")
        [ -f "$wheel" ] || die "LORRY_WHEEL: there is no file $url in the workdir" ;;
  esac
  case $wheel in *.whl) ;; *) die "LORRY_WHEEL: $url is not a .whl file" ;; esac
}

# The wheel's requirements that begin with $1, as pip takes them.
requirement() {
  python3 - "$wheel" "$1" <<'PYTHON' || die "$wheel is not a whole wheel"
import sys, zipfile
wheel, name = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    metadata = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    lines = archive.read(metadata).decode().splitlines()
needed = [l.removeprefix("Requires-Dist: ") for l in lines if l.startswith("Requires-Dist: " + name)]
print(needed[0].replace(" ", "").replace("(", "").replace(")", ""))
PYTHON
}

# ---- the libtorch --------------------------------------------------------------------------------

# Prints which build of libtorch suits this machine: cpu, cu130, cu128, cu126.
choose_torch() {
  local driver gpus=${SKYPILOT_SETUP_NUM_GPUS_PER_NODE:-0}
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1) || true
  case ${driver%%.*} in
    '' | *[!0-9]*)
      [ "${gpus%.*}" = 0 ] || say "warning: $gpus GPU(s) were asked for, but nvidia-smi finds no driver: lorry will run on the processor"
      echo cpu ;;
    *) if [ "${driver%%.*}" -ge 580 ]; then echo cu130
      elif [ "${driver%%.*}" -ge 570 ]; then echo cu128
      elif [ "${driver%%.*}" -ge 525 ]; then echo cu126
      else die "the NVIDIA driver $driver is too old: CUDA 12 needs 525 or newer, CUDA 13 needs 580; choose a newer image (image_id: in the YAML) or another cloud"; fi ;;
  esac
}

# PyPI has the CUDA 13 build. Without a GPU the same build needs two small libraries of CUDA beside
# it, not three gigabytes. Builds for CUDA 12 are in PyTorch's own index alone.
install_torch() {
  local torch
  torch=$(requirement torch)
  case $1 in
    cpu) add --no-deps "$torch" 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*' ;;
    cu130) add "$torch" ;;
    *) add --index-url "https://download.pytorch.org/whl/$1" "$torch" ;;
  esac
}

# ---- the environment -----------------------------------------------------------------------------

# uv fetches and unpacks in parallel; SkyPilot brings it along.
uv=$(command -v uv || { [ -x "$HOME/.local/bin/uv" ] && echo "$HOME/.local/bin/uv"; } || true)

make_environment() {
  if [ -n "$uv" ]; then
    try "uv could not make $home" "$uv" venv --python '>=3.10' "$home"
  else
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
      die "$(python3 --version) is too old; install uv (pip install uv), which brings its own, or choose a newer image"
    try "python3 could not make $home; on Debian and Ubuntu: apt-get install python3-venv" python3 -m venv "$home"
  fi
}

# Installs packages into the environment.
add() {
  local failed="could not install ${*: -1}: is the package index reachable, is the disk full?"
  if [ -n "$uv" ]; then try "$failed" "$uv" pip install --python "$home/bin/python" "$@"
  else try "$failed" "$home/bin/python" -m pip install --disable-pip-version-check "$@"; fi
}

main() {
  local torch='' arrow stamp wheel
  case ${1:-} in
    '') ;;
    --data-only) torch=none ;;
    *) die "takes --data-only or nothing, not $1" ;;
  esac
  command -v python3 >/dev/null || die "there is no python3 on this machine"
  # Nodes may share a home directory: one of them installs, the others wait.
  exec 9>"$home.lock"
  if command -v flock >/dev/null; then flock 9; fi
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT

  find_wheel
  [ -n "$torch" ] || torch=$(choose_torch)
  stamp="$(sha256sum <"$wheel" | cut -d' ' -f1) $torch"
  if [ "$(cat "$home/lorry-setup" 2>/dev/null)" = "$stamp" ]; then
    say "$("$home/bin/lorry" --version) is installed already"
    return
  fi
  [ ! -e "$home/pyvenv.cfg" ] || rm -rf "$home"
  make_environment
  [ "$torch" = none ] || install_torch "$torch"
  arrow=$(requirement pyarrow)
  add "$arrow"
  add --no-deps "$wheel"
  try "the wheel does not run on this machine" "$home/bin/lorry" --version
  echo "$stamp" >"$home/lorry-setup"
  say "$(cat "$scratch/log"), libtorch: $torch, in $((SECONDS - started)) s"
}

main "$@"
