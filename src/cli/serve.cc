#include "serve/serve.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/shared_flags.h"
#include "engine/engine.h"

namespace lorry::cli {
namespace {

/// A member of --speculative-config; nothing changes if it is not there.
Result<> read_member(const Json& config, const char* name, int64_t& out) {
  const auto member = config.find(name);
  if (member == config.end()) return {};
  if (!member->is_number_integer() || *member < 1 || *member > 64)
    return usage_error(
        fmt::format("--speculative-config: '{}' must be an integer from 1 to 64", name));
  out = member->get<int64_t>();
  return {};
}

/// vLLM's JSON, of which the method "ngram" is known.
Result<generate::SpeculationOptions> parse_speculation(const std::string& text) {
  generate::SpeculationOptions out;
  if (text.empty()) return out;
  const auto config = parse_json(text, "--speculative-config");
  if (!config.ok()) return usage_error(config.error().message);
  if (!config->is_object() || config->value("method", Json()) != "ngram")
    return usage_error(
        "--speculative-config takes an object as "
        R"({"method": "ngram", "num_speculative_tokens": 4}; the method is always "ngram")");
  for (const auto& [name, value] : config->items()) {
    if (name != "method" && name != "num_speculative_tokens" && name != "prompt_lookup_max" &&
        name != "prompt_lookup_min")
      return usage_error(fmt::format("--speculative-config: there is no '{}'", name));
  }
  out.num_speculative_tokens = 4;
  LORRY_TRY(read_member(*config, "num_speculative_tokens", out.num_speculative_tokens));
  LORRY_TRY(read_member(*config, "prompt_lookup_max", out.prompt_lookup_max));
  out.prompt_lookup_min = std::min(out.prompt_lookup_min, out.prompt_lookup_max);
  LORRY_TRY(read_member(*config, "prompt_lookup_min", out.prompt_lookup_min));
  if (out.prompt_lookup_min > out.prompt_lookup_max)
    return usage_error("--speculative-config: prompt_lookup_min is more than prompt_lookup_max");
  return out;
}

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
    flags.integer("--max-queued-requests", options_.max_queued_requests, at_least(0),
                  "requests that may wait to be stepped; more are answered 429");
    flags.integer("--max-num-batched-tokens", options_.max_num_batched_tokens, at_least(0),
                  "tokens of prompts and answers computed at once; 0: as suits the device");
    flags.toggle("--enable-prefix-caching", options_.enable_prefix_caching,
                 "compute once what prompts begin with alike");
    flags.text("--speculative-config", speculative_config_, "JSON",
               "guess tokens from the text so far and verify several at once, as with "
               R"({"method": "ngram", "num_speculative_tokens": 4})");
    flags.integer("--tensor-parallel-size", options_.tensor_parallel_size, between(1, 64),
                  "GPUs of this machine that hold the model together, from --device on");
    declare_engine_flags(flags, options_);
  }

  Result<Outcome> run(const Context& context) override {
    LORRY_ASSIGN(options_.speculation, parse_speculation(speculative_config_));
    options_.port = static_cast<int>(port_);
    LORRY_TRY(choose_served(context, base_, run_name_, options_));
    LORRY_ASSIGN(const auto* engine, engine::load_engine());
    LORRY_TRY(engine->serve(options_));
    return Outcome{{{"stopped", true}}, ""};
  }

 private:
  serve::ServeOptions options_;
  bool base_ = false;
  std::string run_name_, speculative_config_;
  int64_t port_ = 8080;
};

}  // namespace

std::unique_ptr<Command> make_serve() { return std::make_unique<Serve>(); }

}  // namespace lorry::cli
