#include "pipeline/engine.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "base/version.h"

namespace lorry::pipeline {
namespace {

constexpr char kFileName[] = "liblorry_engine.so";

std::string engine_path() {
  if (const char* path = std::getenv("LORRY_ENGINE"); path && *path) return path;
  std::error_code ec;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ec);
  return ec ? kFileName : (program.parent_path() / kFileName).string();
}

/// From the loader's words ("libtorch_cpu.so: cannot open shared object file: ...") to a sentence.
Error load_error(const std::string& path, std::string_view reason) {
  std::error_code ec;
  if (!std::filesystem::exists(path, ec))
    return not_found(fmt::format(
        "{} is not there; it belongs beside the program (build it with ./dev build), or name it in "
        "LORRY_ENGINE",
        path));
  const std::string_view library = reason.substr(0, reason.find(':'));
  if (reason.find("cannot open shared object file") != std::string_view::npos)
    return unavailable(
        fmt::format("{} needs {}, which was not found; install libtorch 2.11 with ./dev setup, or "
                    "name its folder in LD_LIBRARY_PATH",
                    path, library));
  return unavailable(fmt::format("{} could not be loaded: {}", path, reason));
}

/// libtorch's OpenMP threads spin for milliseconds while they wait for each other. Where another
/// process wants the cores too, they spin away the very time that the thread they wait for needs:
/// two trainings side by side on two cores ran at 24 tokens/s each, with a short spin at 80, and a
/// training alone as fast as before. libgomp reads the variable when it is loaded.
void shorten_openmp_spin() { ::setenv("GOMP_SPINCOUNT", "10000", /*overwrite=*/0); }

Result<const Engine*> open_engine() {
  const std::string path = engine_path();
  shorten_openmp_spin();
  // All symbols now: a library that does not fit must fail here, not in the middle of a training.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* reason = dlerror();
    return load_error(path, reason ? reason : "unknown reason");
  }
  const auto entry = reinterpret_cast<decltype(&lorry_engine)>(dlsym(library, "lorry_engine"));
  if (!entry)
    return corrupt_data(
        fmt::format("{} is not lorry's engine; build it again with ./dev build", path));
  const Engine* engine = entry();
  if (std::string_view(engine->version) != kVersion)
    return unavailable(
        fmt::format("{} is of version {}, this program of {}; build both again with "
                    "./dev build",
                    path, engine->version, kVersion));
  return engine;
}

}  // namespace

Result<const Engine*> load_engine() {
  static const Result<const Engine*> engine = open_engine();
  return engine;
}

}  // namespace lorry::pipeline
