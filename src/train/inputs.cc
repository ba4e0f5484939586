#include "train/inputs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/log.h"
#include "chat/chat.h"
#include "hub/model_dir.h"
#include "model/transformer.h"  // load_model_spec
#include "store/layout.h"
#include "store/owner.h"
#include "train/batch.h"
#include "train/options.h"

namespace lorry::train {
namespace {

Result<Json> require_info(const store::Bucket& bucket, const std::string& dir,
                          const std::string& command) {
  LORRY_ASSIGN(auto info, bucket.read_info(dir));
  if (!info) {
    return not_found(
        fmt::format("{}: no {}/info.json; run `{}` first", bucket.uri(), dir, command));
  }
  return std::move(*info);
}

/// A digest that info.json recorded, wherever the stage put it; "" if it did not.
std::string recorded(const Json& info, const std::string& key) {
  if (info.contains(key) && info.at(key).is_string()) return info.at(key).get<std::string>();
  return {};
}

/// What was tokenized must be what the model's files say today.
Result<> check_text_digests(const hub::ModelDir& files, const std::string& data_dir,
                            const Json& data_info) {
  const std::string tokenizer = recorded(data_info, "tokenizer_digest");
  const std::string chat_template = recorded(data_info, "template_digest");
  if (tokenizer.empty() && chat_template.empty()) return {};
  LORRY_ASSIGN(const auto chat, chat::Chat::load(files.text_files(), {},
                                                 chat::TemplateSettings::from_json(data_info.value(
                                                     "template_settings", Json()))));
  const bool overridden =
      data_info.contains("options") && data_info.at("options").value("template_override", false);
  const bool same_tokenizer = tokenizer.empty() || tokenizer == chat->tokenizer_digest();
  const bool same_template =
      chat_template.empty() || overridden || chat_template == chat->template_digest();
  if (same_tokenizer && same_template) return {};
  return invalid_input(
      fmt::format("{} was made with another {} than {} has now; run "
                  "`lorry pretokenize` again",
                  data_dir, same_tokenizer ? "chat template" : "tokenizer", files.path()));
}

/// The contents of the base model: not when or from where they came, where info.json lists them.
std::string base_digest(const Json& model_info) {
  if (!model_info.contains("files") || !model_info.at("files").is_array()) {
    return sha256_hex(dump_json(model_info));
  }
  Json contents = Json::array();
  for (const Json& file : model_info.at("files")) {
    if (!file.is_object() || !file.contains("sha256")) return sha256_hex(dump_json(model_info));
    contents.push_back({file.value("name", ""), file.at("sha256")});
  }
  return sha256_hex(dump_json(contents));
}

Result<AdapterSource> open_adapter(const TrainOptions& options,
                                   const std::shared_ptr<store::Bucket>& bucket) {
  if (options.adapter.empty()) return AdapterSource{};
  std::error_code error;
  if (std::filesystem::is_directory(options.adapter, error)) {
    LORRY_ASSIGN(auto local, store::Bucket::open(options.adapter, /*create=*/false));
    return AdapterSource{std::move(local), ""};
  }
  // A path that no bucket can hold ("/nope", "../a") is one that is not there.
  const Result<bool> exists = bucket->exists(options.adapter);
  if (exists.ok() && *exists) return AdapterSource{bucket, options.adapter};
  return not_found(fmt::format("--adapter {}: no such directory, here or in {}", options.adapter,
                               bucket->uri()));
}

Result<std::string> adapter_digest(const AdapterSource& source) {
  const std::string weights = store::join_path(source.dir, "adapter_model.safetensors");
  LORRY_ASSIGN(const bool there, source.bucket->exists(weights));
  // Says what to do with weights of another format.
  if (!there) LORRY_TRY(hub::open_checkpoint(*source.bucket, source.dir, "adapter_model"));
  Sha256 digest;
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
    LORRY_ASSIGN(const std::string bytes, source.bucket->read(store::join_path(source.dir, name)));
    digest.update(bytes);
  }
  return digest.hex();
}

Result<std::vector<std::shared_ptr<data::TokenShardReader>>> open_shards(
    const store::Bucket& bucket, const std::string& dir, const Json& info) {
  if (!info.contains("count") || !info.at("count").is_number_integer()) {
    return corrupt_data(
        fmt::format("{}/info.json: no \"count\"; run `lorry pretokenize` again", dir));
  }
  std::vector<std::shared_ptr<data::TokenShardReader>> shards;
  for (int64_t shard = 0; shard <= info.at("count").get<int64_t>(); ++shard) {
    LORRY_ASSIGN(auto reader, data::TokenShardReader::open(bucket, store::shard_dir(dir, shard)));
    shards.push_back(std::move(reader));
  }
  return shards;
}

}  // namespace

model::LoraConfig lora_config(const TrainOptions& options) {
  model::LoraConfig config;
  config.r = options.lora_r;
  config.alpha = options.lora_alpha;
  config.dropout = options.lora_dropout;
  config.target_modules = options.target_modules;
  // Commas of a regular expression are not those of a list.
  const std::string targets = fmt::format("{}", fmt::join(options.target_modules, ","));
  if (targets.find_first_of("*+?|()[]{}^$\\") != std::string::npos) {
    config.target_modules = {targets};
    config.targets_are_pattern = true;
  }
  config.use_rslora = options.use_rslora;
  config.use_dora = options.use_dora;
  config.bias = options.lora_bias;
  config.modules_to_save = options.modules_to_save;
  return config;
}

ops::WeightFormat base_format(const TrainOptions& options) {
  if (options.base_format == "nf4") return ops::WeightFormat::kNf4;
  return options.base_format == "fp8" ? ops::WeightFormat::kFp8Rows : ops::WeightFormat::kDense;
}

Result<> check_format_on_device(ops::WeightFormat format, int compute_capability) {
  constexpr int kFirstWithFp8 = 89;
  const bool lacks_fp8 = compute_capability > 0 && compute_capability < kFirstWithFp8;
  if (format != ops::WeightFormat::kFp8Rows || !lacks_fp8) return {};
  return unsupported(fmt::format(
      "--base-format fp8: this GPU (sm_{}) has no fp8 numbers, which begin with sm_89 (Ada, "
      "Hopper); take --base-format nf4, which every device has",
      compute_capability));
}

Result<Inputs> open_inputs(const TrainOptions& options) {
  Inputs inputs;
  LORRY_ASSIGN(inputs.bucket, store::Bucket::open(options.bucket, /*create=*/false));
  const store::Bucket& bucket = *inputs.bucket;
  const std::string model_dir = store::model_dir(options.model);
  const std::string data_dir = store::model_ready_dir(options.model, options.dataset);
  LORRY_ASSIGN(inputs.model_info,
               require_info(bucket, model_dir, "lorry import-model " + options.model));
  LORRY_ASSIGN(inputs.data_info,
               require_info(bucket, data_dir,
                            fmt::format("lorry pretokenize --model {} --dataset {}", options.model,
                                        options.dataset)));
  LORRY_TRY(store::check_owner(data_dir, inputs.data_info, options.model, options.dataset));
  LORRY_ASSIGN(const auto files, hub::ModelDir::open(bucket, model_dir));
  LORRY_ASSIGN(inputs.spec, model::load_model_spec(files));
  if (!options.full) LORRY_TRY(model::select_modules(inputs.spec, lora_config(options)));
  LORRY_TRY(check_text_digests(files, data_dir, inputs.data_info));
  LORRY_ASSIGN(inputs.adapter, open_adapter(options, inputs.bucket));
  inputs.identity = Json{{"base", base_digest(inputs.model_info)},
                         {"data", sha256_hex(dump_json(inputs.data_info))},
                         {"options", result_options(options)}};
  if (inputs.adapter.bucket) {
    LORRY_ASSIGN(inputs.identity["adapter"], adapter_digest(inputs.adapter));
  }
  return inputs;
}

Result<> open_rows(Inputs& inputs, const TrainOptions& options) {
  const std::string dir = store::model_ready_dir(options.model, options.dataset);
  LORRY_ASSIGN(inputs.shards, open_shards(*inputs.bucket, dir, inputs.data_info));
  return {};
}

bool are_expected(const Inputs& inputs, const TrainOptions& options) {
  const auto is = [](const Json& info, const std::string& digest) {
    return digest.empty() || sha256_hex(dump_json(info)) == digest;
  };
  return is(inputs.data_info, options.expected_data) &&
         is(inputs.model_info, options.expected_model);
}

RowSource make_rows(const TrainOptions& options, const Inputs& inputs) {
  std::vector<int64_t> shard_rows;
  for (const auto& shard : inputs.shards) shard_rows.push_back(shard->rows());
  const int64_t max_length = options.max_length;
  return RowSource(DataOrder(std::move(shard_rows), options.shuffle, options.seed), options.packing,
                   max_length, [&inputs, max_length](Place place) {
                     const auto size = inputs.row(place).input_ids.size();
                     return std::min<int64_t>(static_cast<int64_t>(size), max_length);
                   });
}

void warn_of_long_rows(const Inputs& inputs, int64_t max_length) {
  const int64_t context = inputs.spec.longest_context;
  if (context <= 0 || max_length <= context) return;
  int64_t longest = 0, count = 0;
  for (const auto& shard : inputs.shards) {
    for (int64_t row = 0; row < shard->rows(); ++row) {
      const auto size = static_cast<int64_t>(shard->row(row).input_ids.size());
      longest = std::max(longest, std::min(size, max_length));
      count += size > context;
    }
  }
  if (count == 0) return;
  log::warn(
      "{} examples have up to {} tokens, but the model's context is {}: it does not know positions "
      "beyond that; give --max-length {}, or import the model with a longer context (rope_scaling)",
      count, longest, context, context);
}

Result<> check_targets(const Inputs& inputs, int64_t max_length) {
  int64_t rows = 0;
  for (const auto& shard : inputs.shards) {
    for (int64_t row = 0; row < shard->rows(); ++row, ++rows) {
      if (useful_length(shard->row(row), max_length) > 0) return {};
    }
  }
  if (rows == 0) return invalid_input("the data set has no examples; nothing to train on");
  return invalid_input(fmt::format(
      "none of {} examples has a token to learn within --max-length {}: every assistant mask is 0 "
      "there; look at one with `lorry render`, or raise --max-length",
      rows, max_length));
}

}  // namespace lorry::train
