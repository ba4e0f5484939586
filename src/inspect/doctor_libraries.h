// The libraries that come in wheels: Arrow, which the program itself needs, and libtorch, which the
// engine needs.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "inspect/doctor_checks.h"
#include "inspect/doctor_gpu.h"

namespace lorry::inspect {

/// Loads the engine, and with it libtorch, to look where they were found and what they are; with
/// `try_cuda` libtorch's CUDA part too. Takes a second or so, and hundreds of megabytes of address
/// space: for a process of its own.
TorchFacts read_torch(bool try_cuda);

/// `version` and `cuda` from torch/version.py, and empty ones where it does not say.
void read_version_file(const std::filesystem::path& path, TorchFacts& facts);

Finding judge_torch(const TorchFacts& facts);
/// The Arrow that this program runs with.
Finding check_arrow();

Json to_json(const TorchFacts& facts);
TorchFacts torch_facts_from(const Json& json);

}  // namespace lorry::inspect
