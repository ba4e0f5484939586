#include "engine/engine.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>

#include "base/version.h"

namespace lorry::engine {
namespace {

namespace fs = std::filesystem;

constexpr char kFileName[] = "liblorry_engine.so";
constexpr char kTorch[] = "libtorch_cpu.so";
constexpr char kRelease[] = "2.11";  ///< of libtorch
constexpr char kInstall[] = "pip install 'torch==2.11.*'";

std::string engine_path() {
  if (const char* path = std::getenv("LORRY_ENGINE"); path && *path) return path;
  std::error_code ec;
  const auto program = fs::read_symlink("/proc/self/exe", ec);
  return ec ? kFileName : (program.parent_path() / kFileName).string();
}

/// The version of the torch package whose lib folder this is, from its version.py; empty if
/// unknown.
std::string torch_version(const fs::path& folder) {
  std::ifstream file(folder.parent_path() / "version.py");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("__version__ = '")) continue;
    const size_t begin = line.find('\'') + 1;
    return line.substr(begin, line.find('\'', begin) - begin);
  }
  return {};
}

/// What a command prints, without the end of the line; empty if it fails.
std::string output_of(const std::string& command) {
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return {};
  std::string text;
  char buffer[4096];
  while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) text += buffer;
  if (::pclose(pipe) != 0) return {};
  return text.substr(0, text.find('\n'));
}

/// The lib folder of the torch package: beside the engine (site-packages/lorry), else what the
/// Python of that environment would import. Empty if there is none.
fs::path torch_folder(const fs::path& engine) {
  std::error_code ec;
  const fs::path packages = engine.parent_path().parent_path();
  const fs::path beside = packages / "torch" / "lib";
  if (fs::exists(beside / kTorch, ec)) return beside;
  const fs::path python = packages.parent_path().parent_path().parent_path() / "bin" / "python3";
  for (const std::string& program : {python.string(), std::string("python3")}) {
    if (program.find('\'') != std::string::npos) continue;
    const fs::path package =
        output_of("'" + program +
                  "' -c 'import importlib.util as u; "
                  "print(u.find_spec(\"torch\").submodule_search_locations[0])' 2>/dev/null");
    if (!package.empty() && fs::exists(package / "lib" / kTorch, ec)) return package / "lib";
  }
  return {};
}

/// From the loader's words ("libtorch_cpu.so: cannot open shared object file: ...") to a sentence.
Error load_error(const std::string& path, const fs::path& torch, std::string_view reason) {
  std::error_code ec;
  if (!fs::exists(path, ec))
    return not_found(fmt::format(
        "{} is not there; it belongs beside the program (build it with ./dev build), or name it in "
        "LORRY_ENGINE",
        path));
  const std::string_view library = reason.substr(0, reason.find(':'));
  const std::string version = torch.empty() ? "" : torch_version(torch);
  if (!version.empty() && !version.starts_with(kRelease + std::string(".")))
    return unavailable(fmt::format("libtorch in {} is {}, but this lorry needs {}; {}",
                                   torch.string(), version, kRelease, kInstall));
  if (reason.find("cannot open shared object file") == std::string_view::npos)
    return unavailable(fmt::format("{} could not be loaded: {}", path, reason));
  if (library == kTorch || library == "libc10.so")
    return unavailable(
        fmt::format("{} needs libtorch {}, which was not found; {} in lorry's environment, or name "
                    "its lib folder in LD_LIBRARY_PATH",
                    path, kRelease, kInstall));
  return unavailable(fmt::format("libtorch needs {}, which was not found; {} with what it needs",
                                 library, kInstall));
}

/// libtorch's OpenMP threads spin for milliseconds while they wait for each other. Where another
/// process wants the cores too, they spin away the very time that the thread they wait for needs:
/// two trainings side by side on two cores ran at 24 tokens/s each, with a short spin at 80, and a
/// training alone as fast as before. libgomp reads the variable when it is loaded.
void shorten_openmp_spin() { ::setenv("GOMP_SPINCOUNT", "10000", /*overwrite=*/0); }

/// oneDNN keeps the code that it generated for each shape of a product, by default for the last
/// 1024, which is up to 0.8 MB each: a server of a 5 MB model grew to 1 GB. oneDNN reads the
/// variable when it is first used.
void bound_kernel_cache() { ::setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "320", /*overwrite=*/0); }

/// All symbols now: a library that does not fit must fail here, not in the middle of a training.
void* load(const char* path) { return ::dlopen(path, RTLD_NOW | RTLD_LOCAL); }

/// The engine, with the libtorch of its RPATH or LD_LIBRARY_PATH, else with one that Python knows.
Result<void*> load_library(const std::string& path) {
  if (void* library = load(path.c_str())) return library;
  const char* words = ::dlerror();
  std::string reason = words ? words : "unknown reason";
  const fs::path torch = torch_folder(path);
  if (!torch.empty() && reason.starts_with("lib") && load((torch / kTorch).c_str()) != nullptr) {
    if (void* library = load(path.c_str())) return library;
    words = ::dlerror();
    reason = words ? words : "unknown reason";
  }
  return load_error(path, torch, reason);
}

/// Refuses a libtorch of another release that has all symbols, but perhaps others behind them.
Result<> check_torch(void* library, const Engine& engine) {
  const auto version =
      reinterpret_cast<std::uint64_t (*)()>(::dlsym(library, "aoti_torch_abi_version"));
  const std::uint64_t found = version ? version() : 0;
  if (found >> 48 == engine.torch_version >> 48) return {};
  return unavailable(fmt::format("libtorch is {}.{}, but this lorry needs {}; {}", found >> 56,
                                 found >> 48 & 0xff, kRelease, kInstall));
}

Result<const Engine*> open_engine() {
  const std::string path = engine_path();
  shorten_openmp_spin();
  bound_kernel_cache();
  LORRY_ASSIGN(void* const library, load_library(path));
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
  LORRY_TRY(check_torch(library, *engine));
  return engine;
}

}  // namespace

Result<const Engine*> load_engine() {
  static const Result<const Engine*> engine = open_engine();
  return engine;
}

}  // namespace lorry::engine
