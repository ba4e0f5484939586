// The one symbol that the program looks up in liblorry_engine.so. No exception leaves an entry.
#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include <exception>

#include "base/first_line.h"
#include "base/version.h"
#include "engine/engine.h"
#include "model/transformer.h"
#include "store/bucket.h"

namespace {

using lorry::Result;

lorry::Error from_exception(const std::exception& e) {
  return lorry::unavailable(fmt::format("the engine failed: {}", lorry::first_line(e.what())));
}

template <auto function, typename Out, typename Options>
Result<Out> guarded(const Options& options) {
  try {
    return function(options);
  } catch (const std::exception& e) {
    return from_exception(e);
  }
}

Result<> check_model_directory(const std::string& directory) {
  LORRY_ASSIGN(const auto bucket, lorry::store::Bucket::open(directory, false));
  return lorry::model::check_checkpoint(*bucket, "");
}

}  // namespace

extern "C" const lorry::engine::Engine* lorry_engine() {
  using lorry::serve::LocalChat;
  using lorry::serve::ServeOptions;
  using lorry::train::EvalOptions;
  using lorry::train::EvalReport;
  using lorry::train::TrainOptions;
  using lorry::train::TrainPlan;
  using lorry::train::TrainReport;
  static constexpr lorry::engine::Engine kEngine = {
      lorry::kVersion,
      TORCH_ABI_VERSION,
      &guarded<&lorry::train::train, TrainReport, TrainOptions>,
      &guarded<&lorry::serve::serve, std::monostate, ServeOptions>,
      &guarded<&lorry::serve::open_local_chat, std::unique_ptr<LocalChat>, ServeOptions>,
      &guarded<&check_model_directory, std::monostate, std::string>,
      &guarded<&lorry::train::plan_training, TrainPlan, TrainOptions>,
      &guarded<&lorry::train::evaluate, EvalReport, EvalOptions>,
  };
  return &kEngine;
}
