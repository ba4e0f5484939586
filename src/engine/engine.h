// liblorry_engine.so (ops, model, generate, train, serve) is loaded when a verb first needs
// libtorch.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "serve/serve.h"
#include "train/evaluate.h"
#include "train/plan.h"
#include "train/train.h"

namespace lorry::engine {

/// The engine's entry points. The same program version is on both sides: version is checked.
struct Engine {
  const char* version;
  std::uint64_t torch_version;  ///< of the libtorch it was built with, as TORCH_ABI_VERSION
  Result<train::TrainReport> (*train)(const train::TrainOptions&);
  Result<> (*serve)(const serve::ServeOptions&);
  Result<std::unique_ptr<serve::LocalChat>> (*open_local_chat)(const serve::ServeOptions&);
  /// Architecture check of `lorry import-model`: reads config.json and every safetensors header.
  Result<> (*check_model)(const std::string& directory);
  Result<train::TrainPlan> (*plan_training)(const train::TrainOptions&);
  Result<train::EvalReport> (*evaluate)(const train::EvalOptions&);
};

/// Loads the engine from beside the program (or LORRY_ENGINE), once. libtorch is looked for beside
/// it, in LD_LIBRARY_PATH, and where the environment's Python would import it from. Fails with a
/// sentence that says which library is missing or of another release, and what to install.
Result<const Engine*> load_engine();

}  // namespace lorry::engine

/// What liblorry_engine.so exports (engine_entry.cc).
extern "C" const lorry::engine::Engine* lorry_engine();
