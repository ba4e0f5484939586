#!/usr/bin/env bash
# Makes what the wheel is linked with and the distribution does not offer, and prints its folder:
#   glibc/      the libraries, crt and libc_nonshared.a of glibc 2.28, to link against
#   libstdc++.so    what GCC 8's libstdc++ offers, to link against
#   lib{fmt,spdlog,simdjson,curl}.a    from the distribution's sources, with its security patches
# Kept under ~/.cache/lorry; made anew when a package or a script here changes. Two minutes on two cores.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$1  # one with pip
jobs=${LORRY_JOBS:-$(nproc)}

key=$({ dpkg-query -W g++ libcurl4-openssl-dev libssl-dev libfmt-dev libspdlog-dev libsimdjson-dev zlib1g-dev
        cat "$here"/{parts.sh,libstdcxx_stub.py,requirements.txt}; } | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lorry
parts=$cache/wheel-$key
[ ! -d "$parts" ] || { echo "$parts"; exit; }

exec 3>&1 >&2
echo "making the parts of the wheel (two minutes, once)"
mkdir -p "$cache"
work=$(mktemp -d "$cache/making.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/out/glibc"

no_network() {
  echo "parts.sh: what the wheel is made of could not be fetched; is there a network?"
  exit 75
}

# glibc 2.28 as the `zig` compiler's package knows it: it links a program that does nothing, and the
# libraries that it used are ours.
glibc() {
  "$python" -m pip download -q --no-deps --require-hashes -r "$here/requirements.txt" -d "$work/zig" || no_network
  "$python" -m zipfile -e "$work"/zig/*.whl "$work/zig"
  chmod +x "$work/zig/ziglang/zig"
  echo 'int main(void) { return 0; }' >"$work/nothing.c"
  ZIG_GLOBAL_CACHE_DIR=$work/zig/cache ZIG_LOCAL_CACHE_DIR=$work/zig/cache "$work/zig/ziglang/zig" build-exe \
    -target x86_64-linux-gnu.2.28 -fPIE "$work/nothing.c" -lc -fno-compiler-rt -fno-ubsan-rt -femit-bin="$work/nothing"
  find "$work/zig/cache" \( -name 'lib*.so.*' -o -name Scrt1.o -o -name libc_nonshared.a \) -exec cp {} "$work/out/glibc" \;
}

# source PACKAGE: the distribution's source of it, patched, into $work/PACKAGE.
source_lists() {
  mkdir -p "$work"/apt/{lists,cache}/ "$work/apt/parts"
  local file
  for file in /etc/apt/sources.list.d/{debian,ubuntu}.sources; do
    [ ! -f "$file" ] || sed 's/^Types:.*/Types: deb-src/' "$file" >"$work/apt/parts/${file##*/}"
  done
  [ ! -f /etc/apt/sources.list ] || sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$work/apt/parts/main.list"
  apt=(apt-get -q -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/apt/parts"
    -o Dir::State::Lists="$work/apt/lists" -o Dir::Cache="$work/apt/cache" -o APT::Sandbox::User=)
  "${apt[@]}" update
}
source_of() {
  mkdir "$work/$1.dsc"
  (cd "$work/$1.dsc" && "${apt[@]}" source --download-only "$1" && dpkg-source --no-check -x ./*.dsc "$work/$1") >"$work/$1.log" 2>&1 ||
    { cat "$work/$1.log"; no_network; }
}

# archive NAME FILE...: compiled with the flags in $flags, into libNAME.a.
archive() {
  local name=$1 file
  shift
  mkdir "$work/$name.o"
  for file in "$@"; do echo "$file"; done |
    xargs -P "$jobs" -I{} sh -c 'c++ '"$flags"' -std=c++20 -O2 -DNDEBUG -fPIC -ffunction-sections -ffile-prefix-map='"$work"'=. -w -c "$1" -o "$2/$(basename "$1").o"' - {} "$work/$name.o"
  ar rcsD "$work/out/lib$name.a" "$work/$name.o"/*.o
}

# http and https alone, on the distribution's OpenSSL; certificates are named by src/net.
curl() {
  cmake -G Ninja -S "$work/curl" -B "$work/curl/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
    -DCMAKE_C_FLAGS="-ffunction-sections -fdata-sections -ffile-prefix-map=$work=. -w" -DBUILD_SHARED_LIBS=OFF -DBUILD_CURL_EXE=OFF \
    -DBUILD_TESTING=OFF -DHTTP_ONLY=ON -DCURL_USE_OPENSSL=ON -DCURL_DISABLE_OPENSSL_AUTO_LOAD_CONFIG=ON \
    -DCURL_USE_LIBSSH2=OFF -DCURL_USE_LIBPSL=OFF -DUSE_LIBIDN2=OFF -DENABLE_MANUAL=OFF \
    -DCURL_CA_BUNDLE=none -DCURL_CA_PATH=none -DHAVE_ARC4RANDOM=OFF >"$work/curl.log" 2>&1 || { cat "$work/curl.log"; return 1; }
  ninja -C "$work/curl/build" -j "$jobs" libcurl >>"$work/curl.log" 2>&1 || { tail -50 "$work/curl.log"; return 1; }
  cp "$work/curl/build/lib/libcurl.a" "$work/out/"
}

glibc
python3 "$here/libstdcxx_stub.py" "$(c++ -print-file-name=libstdc++.so.6)" "$work/libstdc++.so"
mv "$work/libstdc++.so" "$work/out/"
source_lists
for package in fmtlib spdlog simdjson curl; do source_of $package; done
flags="-I$work/fmtlib/include" archive fmt "$work"/fmtlib/src/{format,os}.cc
flags="-DSPDLOG_COMPILED_LIB -DSPDLOG_FMT_EXTERNAL" archive spdlog "$work"/spdlog/src/{spdlog,stdout_sinks,color_sinks,file_sinks,async,cfg}.cpp
flags="-I$work/simdjson/include -I$work/simdjson/src" archive simdjson "$work/simdjson/src/simdjson.cpp"
curl
find "$cache" -maxdepth 1 -name 'wheel-*' -mtime +60 -exec rm -rf {} +
[ -d "$parts" ] || mv -T "$work/out" "$parts"
echo "$parts" >&3
