#include "data/marks.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/row_values.h"

namespace lorry::data {
namespace {

/// OpenAI, Mistral and Fireworks write `weight`, Axolotl `train` or `training`, ms-swift `loss`,
/// torchtune `masked`.
constexpr const char* kMarkKeys[] = {"weight",       "loss_weight",     "loss_scale", "loss",
                                     "loss_mask",    "train",           "training",   "trainable",
                                     "train_detail", "training_detail", "masked"};

/// Axolotl's keys for parts of a turn.
bool is_detail(std::string_view key) { return key.ends_with("_detail"); }

}  // namespace

bool is_mark(std::string_view key) {
  return std::find(std::begin(kMarkKeys), std::end(kMarkKeys), key) != std::end(kMarkKeys);
}

bool marks_context(std::string_view key) { return key == "masked"; }

std::span<const char* const> mark_keys() { return kMarkKeys; }

std::optional<bool> mark_value(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number() && (value == 0 || value == 1)) return value == 1;
  if (!value.is_string()) return std::nullopt;
  std::string text = value.get<std::string>();
  for (char& c : text) c = char(std::tolower(static_cast<unsigned char>(c)));
  if (text == "0" || text == "false") return false;
  if (text == "1" || text == "true") return true;
  return std::nullopt;
}

Result<bool> learned_by_marks(const Json& turn) {
  bool learned = true;
  for (const char* key : kMarkKeys) {
    const Json& mark = field(turn, key);
    if (mark.is_null() || mark == "" || (mark.is_array() && mark.empty())) continue;
    if (is_detail(key)) {
      return invalid_input(fmt::format(
          "{}: parts of a turn cannot be left out of what is learned, only whole turns (\"train\": "
          "false)",
          key));
    }
    const auto value = mark_value(mark);
    if (!value) {
      const bool context = marks_context(key);
      return invalid_input(
          fmt::format("{}: {} is not understood; {} is context that is not learned, {} is learned",
                      key, dump_json(mark), context ? "1 or true" : "0 or false",
                      context ? "0 or false" : "1 or true"));
    }
    learned = learned && *value != marks_context(key);
  }
  return learned;
}

}  // namespace lorry::data
