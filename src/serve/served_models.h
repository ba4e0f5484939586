// The models of one server: which names they go by, and what each needs to answer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "chat/chat.h"
#include "generate/sampling.h"
#include "generate/scheduler.h"
#include "model/lora.h"
#include "serve/metrics.h"
#include "serve/serve.h"

namespace lorry::serve {

/// What the options ask of the scheduler.
generate::SchedulerOptions scheduler_options(const ServeOptions& options);

/// One model that requests can name.
struct ServedModel {
  std::string name;
  std::string parent;  ///< of a fine-tuned model: its base
  size_t queue = 0;    ///< the scheduler's index of its weights
  std::shared_ptr<const model::LoraAdapter> adapter;
  std::shared_ptr<const chat::Chat> chat;
  std::optional<chat::CallForm> call_form;  ///< nullopt: calls in an answer are text
  bool shows_tools = true;                  ///< the template writes their definitions
  generate::SamplingParams defaults;        ///< from generation_config.json
  std::vector<int32_t> stop_ids;            ///< the model's and the tokenizer's end of text
  std::vector<int32_t> chat_stop_ids;       ///< and the template's end of turn
  std::string memory;                       ///< what weights and cache are and take, in words
  int64_t max_model_len = 0;
  int64_t vocab_size = 0;
  std::shared_ptr<ModelMetrics> metrics;  ///< of this name alone
};

/// Loaded once, then immutable, but for the metrics.
class ServedModels {
 public:
  /// Loads the base model, and the fine-tuned one if a data set is named: as an adapter over the
  /// base's weights, or from `fused` where there is no adapter. Hands the weights to `scheduler`,
  /// which is not yet started. Refuses artefacts made with another template or tokenizer.
  static Result<std::unique_ptr<ServedModels>> load(const ServeOptions& options,
                                                    generate::Scheduler& scheduler);

  /// By name, further name, or a path that ends in done/{model}/{dataset}/fused; empty: the
  /// fine-tuned model if there is one, else the base. nullptr if there is none.
  const ServedModel* find(std::string_view name) const;
  const std::vector<ServedModel>& all() const { return models_; }
  /// Every name, further names included.
  std::vector<std::string> names() const;

 private:
  friend class ModelLoader;
  std::vector<ServedModel> models_;  // the base first
  std::vector<std::pair<std::string, size_t>> further_names_;
};

}  // namespace lorry::serve
