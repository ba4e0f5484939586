// Serving's public face; free of libtorch, so that the program can fill it in without the engine.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "generate/prompt_lookup.h"

namespace lorry::serve {

struct ServeOptions {
  std::string bucket = "./bucket";
  std::string model;    ///< name of the base model in the bucket
  std::string dataset;  ///< with it, {model}/{dataset} is served too; empty: the base model alone
  std::string host = "127.0.0.1";
  int port = 8080;
  std::vector<std::string> served_model_name;        ///< further names of the fine-tuned model
  std::string api_key;                               ///< empty: open
  int64_t max_model_len = 0;                         ///< tokens; 0: the model's context
  int64_t max_num_seqs = 64;                         ///< sequences stepped at once
  int64_t max_connections = 1024;                    ///< open at once; more are answered 503
  std::vector<std::string> allowed_origins = {"*"};  ///< of web pages (CORS); "none": none
  int64_t kv_cache_tokens = 0;                       ///< 0: chosen from free memory
  int64_t tensor_parallel_size = 1;                  ///< devices that hold each model together
  int64_t max_queued_requests = 4096;  ///< that wait for a place; more are answered 429
  int64_t max_num_batched_tokens = 0;  ///< of an engine step; 0: as many as suit the device
  bool enable_prefix_caching = true;   ///< prompts that begin alike are computed once
  generate::SpeculationOptions speculation;
  std::string dtype = "auto";
  std::string quantization = "none";  ///< of the weights: none, fp8, int8, int4 or nf4
  std::string device = "auto";
};

/// Listens at once and answers 503 until the models are loaded; then prints the address and serves
/// until a signal arrives, and lets running requests end. A signal while they load ends it at once,
/// with kCancelled; the thread that loads is left behind, so the process must then end without
/// waiting for it.
Result<> serve(const ServeOptions& options);

/// A loaded model that answers in this process (`lorry chat`, `lorry run`'s last line).
class LocalChat {
 public:
  virtual ~LocalChat() = default;
  /// Answers `messages`; `on_text` gets the pieces as they come and returns false to stop.
  /// `model_name`: the base's or the fine-tuned model's served name; empty: fine-tuned if there.
  virtual Result<std::string> complete(const std::string& model_name, const Json& messages,
                                       const Json& sampling,
                                       const std::function<bool(std::string_view)>& on_text) = 0;
  virtual std::vector<std::string> model_names() const = 0;
};

Result<std::unique_ptr<LocalChat>> open_local_chat(const ServeOptions& options);

}  // namespace lorry::serve
