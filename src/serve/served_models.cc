#include "serve/served_models.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/first_line.h"
#include "base/log.h"
#include "base/progress.h"  // format_bytes
#include "generate/step_model.h"
#include "generate/stop_ids.h"
#include "hub/model_dir.h"
#include "store/bucket.h"
#include "store/layout.h"

namespace lorry::serve {
namespace {

generate::SamplingParams sampling_defaults(const Json& generation_config) {
  generate::SamplingParams params;
  const auto read = [&](const char* name, auto& out) {
    if (!generation_config.is_object()) return;
    const auto it = generation_config.find(name);
    if (it != generation_config.end() && it->is_number()) it->get_to(out);
  };
  read("temperature", params.temperature);
  read("top_p", params.top_p);
  read("top_k", params.top_k);
  read("min_p", params.min_p);
  read("repetition_penalty", params.repetition_penalty);
  return params;
}

/// The first value of `key` at any depth: stages group what they record in their own ways.
std::optional<std::string> find_string(const Json& json, const std::string& key) {
  if (!json.is_structured()) return std::nullopt;
  if (json.is_object()) {
    const auto it = json.find(key);
    if (it != json.end() && it->is_string()) return it->get<std::string>();
  }
  for (const Json& child : json) {
    if (auto found = find_string(child, key)) return found;
  }
  return std::nullopt;
}

Result<> check_digest(const Json& info, const std::string& key, const std::string& now,
                      const std::string& what, const std::string& where) {
  const auto recorded = find_string(info, key);
  if (!recorded || recorded->empty() || *recorded == now) return {};
  return invalid_input(fmt::format(
      "{} was trained with another {} than the model has now ({} there, {} here); import the model "
      "that it was trained with, or run `lorry pretokenize` and `lorry train` again",
      where, what, recorded->substr(0, 12), now.substr(0, 12)));
}

ops::WeightFormat weight_format(const std::string& quantization) {
  if (quantization == "fp8") return ops::WeightFormat::kFp8Rows;
  if (quantization == "int8") return ops::WeightFormat::kInt8Rows;
  if (quantization == "int4") return ops::WeightFormat::kInt4Groups;
  return quantization == "nf4" ? ops::WeightFormat::kNf4 : ops::WeightFormat::kDense;
}

/// Logits suffer most from coarse numbers: the head has a byte each where blocks have half of one.
/// Beside NF4 it is dense, as in training.
ops::WeightFormat head_format(ops::WeightFormat blocks) {
  if (blocks == ops::WeightFormat::kInt4Groups) return ops::WeightFormat::kInt8Rows;
  return blocks == ops::WeightFormat::kNf4 ? ops::WeightFormat::kDense : blocks;
}

std::string describe_weights(const model::Transformer& transformer) {
  const ops::Weight& weight = transformer.weight(0, 0);
  const bool is_dense = weight.format == ops::WeightFormat::kDense;
  const bool is_packed = weight.format == ops::WeightFormat::kPacked;
  const std::string_view format =
      is_dense || is_packed
          ? ops::dtype_name(is_dense ? weight.data.scalar_type() : transformer.dtype())
          : ops::format_name(weight.format);
  return fmt::format("{} of {} weights, arithmetic in {}",
                     format_bytes(static_cast<double>(transformer.weight_bytes())), format,
                     ops::dtype_name(transformer.dtype()));
}

/// A directory of weights with its config.
struct Weights {
  std::vector<std::shared_ptr<model::Transformer>> ranks;
  Json generation_config;
};

}  // namespace

generate::SchedulerOptions scheduler_options(const ServeOptions& options) {
  generate::SchedulerOptions out;
  out.max_num_seqs = std::max<int64_t>(options.max_num_seqs, 1);
  out.max_queued = options.max_queued_requests;
  out.max_step_tokens = options.max_num_batched_tokens;
  out.enable_prefix_caching = options.enable_prefix_caching;
  out.speculation = options.speculation;
  return out;
}

/// The steps of ServedModels::load.
class ModelLoader {
 public:
  ModelLoader(const ServeOptions& options, generate::Scheduler& scheduler)
      : options_(options), scheduler_(scheduler) {}

  Result<std::unique_ptr<ServedModels>> run() {
    if (options_.model.empty())
      return usage_error("no model is named; give --model or set MODEL_NAME");
    LORRY_ASSIGN(bucket_, store::Bucket::open(options_.bucket, false));
    LORRY_ASSIGN(devices_, ops::resolve_devices(options_.device, options_.tensor_parallel_size));
    const std::string base_dir = store::model_dir(options_.model);
    LORRY_ASSIGN(const bool has_base, complete(base_dir));
    LORRY_TRY(find_fine_tuned());
    if (!has_base && fused_dir_.empty())
      return not_found(fmt::format("{} is not in {}; import it with `lorry import-model`", base_dir,
                                   bucket_->uri()));
    if (has_base) LORRY_TRY(load_base(base_dir));
    if (!options_.dataset.empty()) LORRY_TRY(load_fine_tuned());
    LORRY_TRY(make_caches());
    for (const std::string& name : options_.served_model_name)
      models_->further_names_.emplace_back(name, models_->models_.size() - 1);
    return std::move(models_);
  }

 private:
  Result<bool> complete(const std::string& dir) {
    LORRY_ASSIGN(const auto info, bucket_->read_info(dir));
    return info.has_value();
  }

  /// Sets adapter_dir_ or fused_dir_ if a data set is named.
  Result<> find_fine_tuned() {
    if (options_.dataset.empty()) return {};
    const std::string done = store::done_dir(options_.model, options_.dataset);
    LORRY_ASSIGN(auto info, bucket_->read_info(done));
    if (!info)
      return not_found(fmt::format(
          "{}/info.json is not in {}: the training is not complete; run `lorry train`, or leave "
          "--dataset out to serve the base model alone",
          done, bucket_->uri()));
    done_info_ = std::move(*info);
    const std::string adapter = store::adapter_dir(options_.model, options_.dataset);
    LORRY_ASSIGN(const bool has_adapter, bucket_->exists(adapter + "/adapter_config.json"));
    const std::string fused = store::fused_dir(options_.model, options_.dataset);
    LORRY_ASSIGN(const bool has_fused, bucket_->exists(fused + "/config.json"));
    LORRY_ASSIGN(const bool has_base, complete(store::model_dir(options_.model)));
    if (has_adapter && has_base) {
      adapter_dir_ = adapter;
    } else if (has_fused) {
      fused_dir_ = fused;
    } else {
      return not_found(
          fmt::format("{} holds neither lora_model nor fused; run `lorry train` again", done));
    }
    return {};
  }

  /// `--dtype` and `--quantization` as what the weights are loaded in.
  Result<model::LoadOptions> load_options(const model::ModelSpec& spec) const {
    const at::Device device = devices_[0];
    model::LoadOptions out{.device = device, .pack = true};
    out.base_format = weight_format(options_.quantization);
    if (device.is_cpu()) out.head_format = head_format(out.base_format);
    const bool is_quantized = out.base_format != ops::WeightFormat::kDense;
    // What multiplies quantised weights on a CPU takes float32.
    const bool chooses = options_.dtype == "auto" || options_.dtype.empty();
    const std::string dtype =
        is_quantized && device.is_cpu() && chooses ? "float32" : options_.dtype;
    LORRY_ASSIGN(out.dtype, ops::resolve_dtype(dtype, spec.dtype, device));
    if (const auto slow = ops::slow_dtype_warning(out.dtype, device); !slow.empty()) {
      log::warn("{}", slow);
    }
    return out;
  }

  Result<Weights> load_weights(const std::string& dir) {
    LORRY_ASSIGN(const auto files, hub::ModelDir::open(*bucket_, dir));
    Weights weights;
    weights.generation_config = files.generation_config();
    LORRY_ASSIGN(const model::ModelSpec spec, model::load_model_spec(files));
    LORRY_ASSIGN(const model::LoadOptions load, load_options(spec));
    LORRY_ASSIGN(weights.ranks, model::Transformer::load_ranks(*bucket_, dir, load, devices_));
    return weights;
  }

  /// The template's side of a model.
  Result<> load_chat(const std::string& dir, const model::ModelSpec& config,
                     chat::TemplateSettings settings, ServedModel& served) const {
    LORRY_ASSIGN(served.chat,
                 chat::Chat::load(hub::text_files(*bucket_, dir), {}, std::move(settings)));
    served.call_form = served.chat->call_form();
    served.shows_tools = served.chat->shows_tools();
    served.stop_ids = generate::text_stop_ids(config.eos_token_ids, *served.chat);
    served.chat_stop_ids = generate::chat_stop_ids(config.eos_token_ids, *served.chat);
    return {};
  }

  /// As the template was used in training, but with the day of the request.
  chat::TemplateSettings trained_settings() const {
    auto settings =
        chat::TemplateSettings::from_json(done_info_.value("template_settings", Json()));
    settings.date.clear();
    return settings;
  }

  Result<ServedModel> describe(const std::string& dir, const Weights& weights,
                               chat::TemplateSettings settings) {
    ServedModel served;
    const auto& config = weights.ranks[0]->spec();
    LORRY_TRY(load_chat(dir, config, std::move(settings), served));
    served.defaults = sampling_defaults(weights.generation_config);
    served.vocab_size = config.vocab_size;
    served.max_model_len = config.max_position_embeddings;
    if (options_.max_model_len > config.longest_context && config.longest_context > 0)
      return usage_error(fmt::format("--max-model-len {}: the model's context is {} tokens",
                                     options_.max_model_len, config.longest_context));
    if (options_.max_model_len > 0) served.max_model_len = options_.max_model_len;
    served.queue = models_by_queue_.size();
    served.memory = describe_weights(*weights.ranks[0]);
    models_by_queue_.push_back(weights.ranks);
    return served;
  }

  Result<> load_base(const std::string& dir) {
    LORRY_ASSIGN(const Weights weights, load_weights(dir));
    LORRY_ASSIGN(ServedModel served, describe(dir, weights, {}));
    served.name = options_.model;
    served.metrics = std::make_shared<ModelMetrics>();
    models_->models_.push_back(std::move(served));
    return {};
  }

  Result<> load_fine_tuned() {
    ServedModel served;
    if (!adapter_dir_.empty()) {
      served = models_->models_[0];
      const model::Transformer& base = *models_by_queue_[0][0];
      if (const auto settings = trained_settings(); !settings.to_json().empty())
        LORRY_TRY(load_chat(store::model_dir(options_.model), base.spec(), settings, served));
      LORRY_ASSIGN(served.adapter, model::LoraAdapter::load(*bucket_, adapter_dir_,
                                                            base.whole_spec(), devices_[0]));
      // Refused now rather than at the first request.
      if (base.shard()) {
        LORRY_TRY(served.adapter->part_of(*base.shard(), devices_[0]).with_context(adapter_dir_));
      }
    } else {
      LORRY_ASSIGN(const Weights weights, load_weights(fused_dir_));
      LORRY_ASSIGN(served, describe(fused_dir_, weights, trained_settings()));
    }
    served.name = options_.model + "/" + options_.dataset;
    served.parent = options_.model;
    served.metrics = std::make_shared<ModelMetrics>();
    const std::string done = store::done_dir(options_.model, options_.dataset);
    LORRY_TRY(check_digest(done_info_, "template_digest", served.chat->template_digest(),
                           "chat template", done));
    LORRY_TRY(check_digest(done_info_, "tokenizer_digest", served.chat->tokenizer_digest(),
                           "tokenizer", done));
    models_->models_.push_back(std::move(served));
    return {};
  }

  /// A cache for each set of weights, once all of them are in memory.
  Result<> make_caches() {
    for (size_t queue = 0; queue < models_by_queue_.size(); ++queue) {
      int64_t max_len = 0;
      for (const auto& served : models_->models_) {
        if (served.queue == queue) max_len = served.max_model_len;
      }
      const auto share = static_cast<int64_t>(models_by_queue_.size() - queue);
      const int64_t tokens =
          generate::choose_kv_cache_tokens(*models_by_queue_[queue][0], options_.kv_cache_tokens,
                                           options_.max_num_seqs * max_len, share);
      auto model = generate::make_step_model(models_by_queue_[queue], tokens);
      const int64_t capacity = model->cache().free_tokens();
      const std::string cache =
          fmt::format("; room for {} tokens in a cache of {}", capacity,
                      format_bytes(static_cast<double>(model->cache().bytes())));
      for (auto& served : models_->models_) {
        if (served.queue != queue) continue;
        served.memory += cache;
        if (served.max_model_len <= capacity) continue;
        log::warn("the cache has room for {} tokens, so {} takes that many instead of {}", capacity,
                  served.name, served.max_model_len);
        served.max_model_len = capacity;
      }
      scheduler_.add_model(std::move(model));
    }
    return {};
  }

  const ServeOptions& options_;
  generate::Scheduler& scheduler_;
  std::shared_ptr<store::Bucket> bucket_;
  std::vector<at::Device> devices_;  // by rank
  std::string adapter_dir_, fused_dir_;
  Json done_info_;
  std::vector<std::vector<std::shared_ptr<model::Transformer>>> models_by_queue_;  // their ranks
  std::unique_ptr<ServedModels> models_ = std::make_unique<ServedModels>();
};

Result<std::unique_ptr<ServedModels>> ServedModels::load(const ServeOptions& options,
                                                         generate::Scheduler& scheduler) {
  try {
    return ModelLoader(options, scheduler).run();
  } catch (const std::exception& e) {
    return unavailable(
        fmt::format("{} could not be loaded: {}", options.model, first_line(e.what())));
  }
}

const ServedModel* ServedModels::find(std::string_view name) const {
  if (name.empty()) return &models_.back();
  while (name.ends_with('/')) name.remove_suffix(1);
  for (const auto& [further, index] : further_names_) {
    if (name == further) return &models_[index];
  }
  for (const ServedModel& model : models_) {
    if (name == model.name) return &model;
    if (model.parent.empty()) continue;
    for (const char* leaf : {"/fused", "/lora_model"}) {
      const std::string path = "done/" + model.name + leaf;
      if (name == path || name.ends_with("/" + path)) return &model;
    }
  }
  return nullptr;
}

std::vector<std::string> ServedModels::names() const {
  std::vector<std::string> names;
  for (const ServedModel& model : models_) names.push_back(model.name);
  for (const auto& [name, index] : further_names_) names.push_back(name);
  return names;
}

}  // namespace lorry::serve
