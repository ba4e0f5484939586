#include "inspect/doctor_libraries.h"

#include <arrow/config.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <link.h>  // dl_iterate_phdr

#include <fstream>
#include <vector>

#include "engine/engine.h"

namespace lorry::inspect {
namespace {

namespace fs = std::filesystem;

/// The release that the engine is built for; another's classes have another layout.
constexpr std::string_view kTorchRelease = "2.11.";

/// The path of a loaded library whose file name begins with `name`; empty if there is none.
std::string loaded_library(const std::string& name) {
  std::pair<const std::string&, std::string> search(name, {});
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto& [wanted, found] = *static_cast<decltype(search)*>(data);
        const std::string path = info->dlpi_name;
        if (!path.substr(path.rfind('/') + 1).starts_with(wanted)) return 0;
        found = path;
        return 1;
      },
      &search);
  std::error_code error;
  const auto plain = fs::weakly_canonical(search.second, error);
  return error ? search.second : plain.string();
}

/// "13" from libcudart.so.13, which even a libtorch_cpu of a CUDA build needs.
std::string cuda_of_runtime() {
  const std::string path = loaded_library("libcudart.so.");
  return path.empty() ? "" : path.substr(path.rfind(".so.") + 4);
}

/// The text between the quotes of "name = 'text'" or "name: type = 'text'".
std::string quoted_value(const std::string& line) {
  const size_t begin = line.find('\'');
  if (begin == std::string::npos) return {};
  return line.substr(begin + 1, line.find('\'', begin + 1) - begin - 1);
}

}  // namespace

void read_version_file(const fs::path& path, TorchFacts& facts) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("__version__")) facts.version = quoted_value(line);
    if (line.starts_with("cuda:") || line.starts_with("cuda =")) facts.cuda = quoted_value(line);
  }
}

TorchFacts read_torch(bool try_cuda) {
  TorchFacts facts;
  const auto engine = engine::load_engine();
  if (!engine.ok()) {
    facts.error = engine.error().message;
    return facts;
  }
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>((*engine)->train), &info) != 0)
    facts.engine = info.dli_fname;
  const std::string library = loaded_library("libtorch_cpu.so");
  const fs::path folder = fs::path(library).parent_path();
  facts.folder = folder.string();
  read_version_file(folder.parent_path() / "version.py", facts);
  if (facts.version.empty()) facts.cuda = cuda_of_runtime();
  const fs::path cuda = folder / "libtorch_cuda.so";
  std::error_code error;
  if (!fs::exists(cuda, error)) {
    facts.cuda.clear();
  } else if (try_cuda && dlopen(cuda.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    const char* reason = dlerror();
    facts.cuda_error = reason == nullptr ? "unknown reason" : reason;
  }
  return facts;
}

Finding judge_torch(const TorchFacts& facts) {
  if (!facts.error.empty())
    return fail("libtorch", facts.error,
                "data verbs work without it; look at them alone with --data-only");
  const std::string text = fmt::format(
      "{} ({}) in {}; engine {}", facts.version.empty() ? "of unknown version" : facts.version,
      facts.cuda.empty() ? "CPU alone" : "CUDA " + facts.cuda, facts.folder, facts.engine);
  if (!facts.version.empty() && !facts.version.starts_with(kTorchRelease))
    return warn("libtorch", text,
                fmt::format("the engine is made for {}*: pip install 'torch=={}*'", kTorchRelease,
                            kTorchRelease));
  return ok("libtorch", text);
}

Finding check_arrow() {
  const std::string path = loaded_library("libarrow.so");
  return ok("arrow",
            fmt::format("{}{}", arrow::GetBuildInfo().version_string,
                        path.empty() ? "" : " in " + fs::path(path).parent_path().string()));
}

Json to_json(const TorchFacts& facts) {
  return {{"error", facts.error},     {"engine", facts.engine}, {"folder", facts.folder},
          {"version", facts.version}, {"cuda", facts.cuda},     {"cuda_error", facts.cuda_error}};
}

TorchFacts torch_facts_from(const Json& json) {
  return {json.value("error", ""),   json.value("engine", ""), json.value("folder", ""),
          json.value("version", ""), json.value("cuda", ""),   json.value("cuda_error", "")};
}

}  // namespace lorry::inspect
