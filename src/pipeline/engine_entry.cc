// The one symbol that the program looks up in liblorry_engine.so.
#include "base/version.h"
#include "pipeline/engine.h"

extern "C" const lorry::pipeline::Engine* lorry_engine() {
  static constexpr lorry::pipeline::Engine kEngine = {lorry::kVersion, nullptr, nullptr, nullptr, nullptr};
  return &kEngine;
}
