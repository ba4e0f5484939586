#include "stages/vocabulary.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/progress.h"  // format_count

namespace lorry::stages {
namespace {

/// 4096 ("<new>")
std::string describe(const chat::Chat& chat, int32_t id) {
  const std::string text = chat.tokenizer()->decode(std::span(&id, 1), false);
  return text.empty() ? std::to_string(id) : fmt::format("{} (\"{}\")", id, text);
}

Error no_row(const chat::Chat& chat, int32_t id, int64_t rows) {
  return invalid_input(fmt::format(
      "token {} has no row in the model's embedding ({} rows); give the model a tokenizer without "
      "it (tokenizer_config.json may name it), or resize the model with "
      "resize_token_embeddings of transformers, and import it again",
      describe(chat, id), format_count(rows)));
}

}  // namespace

std::optional<int64_t> embedding_rows(const Json& config) {
  if (!config.is_object()) return std::nullopt;
  const Json text = config.value("text_config", Json());  // of multimodal models
  const Json& part = text.is_object() ? text : config;
  const auto size = part.find("vocab_size");
  if (size == part.end() || !size->is_number_integer()) return std::nullopt;
  return size->get<int64_t>();
}

std::optional<int64_t> rows_to_check(const chat::Chat& chat, const Json& config) {
  const auto rows = embedding_rows(config);
  if (!rows || chat.tokenizer()->vocab_size() <= *rows) return std::nullopt;
  return rows;
}

Result<> check_ids(const chat::Chat& chat, std::span<const int32_t> ids, int64_t rows) {
  for (const int32_t id : ids) {
    if (id >= rows) return no_row(chat, id, rows);
  }
  return {};
}

Result<> check_vocabulary(const chat::Chat& chat, const Json& config, const std::string& name) {
  const auto rows = rows_to_check(chat, config);
  if (!rows) return {};
  if (chat.has_template()) {
    const Json messages = {{{"role", "user"}, {"content", "Hi"}},
                           {{"role", "assistant"}, {"content", "Hello"}}};
    const auto example = chat.encode_example(messages, Json());
    if (example.ok()) {
      LORRY_TRY(check_ids(chat, example->input_ids, *rows).with_context("the chat template"));
    }
  }
  const auto eos = chat.tokenizer()->eos_id();
  if (eos && *eos >= *rows) {
    log::warn(
        "{}: its end token {} has no row in the embedding ({} rows): plain text, which ends with "
        "it, cannot be trained on",
        name, describe(chat, *eos), format_count(*rows));
    return {};
  }
  log::warn(
      "{}: {} of the tokenizer's ids have no row in the embedding ({} rows), as {}; rows of "
      "data that hold one of them will be refused",
      name, format_count(chat.tokenizer()->vocab_size() - *rows), format_count(*rows),
      describe(chat, static_cast<int32_t>(*rows)));
  return {};
}

}  // namespace lorry::stages
