#include "serve/serve.h"

#include "base/log.h"
#include "cli/command.h"
#include "cli/shared_flags.h"
#include "engine/engine.h"

namespace lorry::cli {
namespace {

class Serve final : public Command {
 public:
  void declare(Flags& flags) override {
    flags.bucket_name(
        "--dataset", options_.dataset,
        "serve the model as it was fine-tuned on this one (the only one; DATASET_NAME)",
        "DATASET_NAME");
    declare_model(flags, options_.model);
    declare_run_name(flags, run_name_, "which of the trainings on that data set (the only one)");
    flags.on("--base", base_, "serve the base model alone");
    flags.text("--host", options_.host, "ADDRESS", "address to listen on; 0.0.0.0: all");
    flags.integer("--port", port_, between(0, 65535), "port to listen on; 0: any free one");
    flags.list("--served-model-name", options_.served_model_name, "NAME,...",
               "further names of the fine-tuned model");
    flags.text("--api-key", options_.api_key, "KEY",
               "ask for this key; better given as LORRY_API_KEY, which `ps` does not show");
    flags.integer("--max-num-seqs", options_.max_num_seqs, between(1, 4096),
                  "requests stepped at once");
    flags.integer("--max-connections", options_.max_connections, between(1, 1 << 20),
                  "connections open at once; more are answered 503");
    flags.list("--allowed-origins", options_.allowed_origins, "ORIGIN,...",
               "web pages that may use the server (CORS), e.g. https://chat.example; *: all; none");
    flags.integer("--kv-cache-tokens", options_.kv_cache_tokens, at_least(0),
                  "size of the cache; 0: from free memory");
    flags.integer("--tensor-parallel-size", options_.tensor_parallel_size, between(1, 64),
                  "GPUs of this machine that hold the model together, from --device on");
    declare_engine_flags(flags, options_);
  }

  Result<Outcome> run(const Context& context) override {
    options_.port = static_cast<int>(port_);
    LORRY_TRY(choose_served(context, base_, run_name_, options_));
    LORRY_ASSIGN(const auto* engine, engine::load_engine());
    LORRY_TRY(engine->serve(options_));
    return Outcome{{{"stopped", true}}, ""};
  }

 private:
  serve::ServeOptions options_;
  bool base_ = false;
  std::string run_name_;
  int64_t port_ = 8080;
};

}  // namespace

std::unique_ptr<Command> make_serve() { return std::make_unique<Serve>(); }

}  // namespace lorry::cli
