#include "stages/token_counts.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/progress.h"

namespace lorry::stages {
namespace {

/// Steps of a length between two powers of two, as a power of two.
constexpr int kStepBits = 5;
constexpr int kBarWidth = 40;
constexpr double kQuantiles[] = {0.5, 0.9, 0.99};

/// The largest length that is counted together with this one.
int64_t step_of(int64_t length) {
  const int shift = std::max(0, int(std::bit_width(uint64_t(length))) - (kStepBits + 1));
  return (((length >> shift) + 1) << shift) - 1;
}

std::string bar(int64_t rows, int64_t most) {
  const auto width = (rows * kBarWidth + most - 1) / most;
  std::string out;
  for (int64_t i = 0; i < width; ++i) out += '#';
  return out;
}

}  // namespace

void LengthHistogram::count(int64_t length, int64_t rows) { steps_[step_of(length)] += rows; }

void LengthHistogram::add(const LengthHistogram& other) {
  for (const auto& [length, rows] : other.steps_) steps_[length] += rows;
}

int64_t LengthHistogram::rows() const {
  int64_t all = 0;
  for (const auto& [length, rows] : steps_) all += rows;
  return all;
}

int64_t LengthHistogram::quantile(double q) const {
  const auto wanted = std::max<int64_t>(1, std::llround(std::ceil(q * double(rows()))));
  int64_t seen = 0;
  for (const auto& [length, rows] : steps_) {
    seen += rows;
    if (seen >= wanted) return length;
  }
  return 0;
}

Json LengthHistogram::to_json() const {
  Json json = Json::object();
  for (const auto& [length, rows] : steps_) json[std::to_string(length)] = rows;
  return json;
}

LengthHistogram LengthHistogram::from_json(const Json& json) {
  LengthHistogram out;
  for (const auto& [name, rows] : json.items()) {
    int64_t length = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), length);
    if (error == std::errc() && end == name.data() + name.size() && rows.is_number_integer())
      out.steps_[length] += rows.get<int64_t>();
  }
  return out;
}

bool TokenCounts::count(const chat::EncodedExample& example) {
  const auto length = static_cast<int64_t>(example.input_ids.size());
  const auto targets =
      std::count(example.assistant_masks.begin(), example.assistant_masks.end(), 1);
  ++rows;
  tokens += length;
  target_tokens += targets;
  rows_without_target += targets == 0;
  longest = std::max(longest, length);
  for (size_t i = 0; i < std::size(kLengths); ++i) longer[i] += length > kLengths[i];
  lengths.count(length);
  return targets > 0;
}

void TokenCounts::add(const TokenCounts& other) {
  rows += other.rows;
  tokens += other.tokens;
  target_tokens += other.target_tokens;
  rows_without_target += other.rows_without_target;
  rows_without_end += other.rows_without_end;
  rows_with_new_call_ids += other.rows_with_new_call_ids;
  longest = std::max(longest, other.longest);
  for (size_t i = 0; i < std::size(kLengths); ++i) longer[i] += other.longer[i];
  lengths.add(other.lengths);
  excess.add(other.excess);
  for (const auto& [kind, more] : other.losses) {
    auto& sum = losses[kind];
    if (sum.rows == 0) sum.first = more.first;
    sum.rows += more.rows;
  }
}

Json TokenCounts::to_json() const {
  Json by_length = Json::object();
  for (size_t i = 0; i < std::size(kLengths); ++i) {
    by_length[std::to_string(kLengths[i])] = longer[i];
  }
  Json json = {{"rows", rows},
               {"tokens", tokens},
               {"target_tokens", target_tokens},
               {"rows_without_target", rows_without_target},
               {"rows_without_end", rows_without_end},
               {"longest", longest},
               {"rows_longer_than", std::move(by_length)}};
  if (has_lengths()) {
    for (const double q : kQuantiles) {
      json["length_quantiles"][fmt::format("p{:.0f}", q * 100)] =
          std::min(lengths.quantile(q), longest);
    }
    json["lengths"] = lengths.to_json();
  }
  if (rows_with_new_call_ids > 0) json["rows_with_new_call_ids"] = rows_with_new_call_ids;
  if (excess.rows > 0) json["excess"] = excess.to_json();
  for (const auto& [kind, like] : losses)
    json["template_losses"][kind] = {{"rows", like.rows}, {"first", like.first}};
  return json;
}

TokenCounts TokenCounts::from_json(const Json& json) {
  TokenCounts counts;
  const auto number = [&](const char* name) { return json.value(name, int64_t{0}); };
  counts.rows = number("rows");
  counts.tokens = number("tokens");
  counts.target_tokens = number("target_tokens");
  counts.rows_without_target = number("rows_without_target");
  counts.rows_without_end = number("rows_without_end");
  counts.rows_with_new_call_ids = number("rows_with_new_call_ids");
  counts.longest = number("longest");
  const Json by_length = json.value("rows_longer_than", Json::object());
  for (size_t i = 0; i < std::size(kLengths); ++i) {
    counts.longer[i] = by_length.value(std::to_string(kLengths[i]), int64_t{0});
  }
  counts.lengths = LengthHistogram::from_json(json.value("lengths", Json::object()));
  counts.excess = ExcessCounts::from_json(json.value("excess", Json::object()));
  const Json losses = json.value("template_losses", Json::object());
  for (const auto& [kind, like] : losses.items())
    counts.losses[kind] = {like.value("rows", int64_t{0}), like.value("first", "")};
  return counts;
}

namespace {

/// "12", "about 12" or "some": how many rows are longer.
std::string rows_longer_than(const TokenCounts& counts, int64_t max_length) {
  for (size_t i = 0; i < std::size(TokenCounts::kLengths); ++i) {
    if (TokenCounts::kLengths[i] == max_length) return format_count(counts.longer[i]);
  }
  if (!counts.has_lengths()) return "some";
  int64_t rows = 0;
  for (const auto& [length, n] : counts.lengths.steps()) rows += length > max_length ? n : 0;
  return "about " + format_count(rows);
}

}  // namespace

std::string describe_cut(const TokenCounts& counts, int64_t max_length) {
  if (counts.longest <= max_length) return "";
  return fmt::format(
      "{} of {} rows are longer than --max-length {} (the longest has {} tokens): training cuts "
      "them "
      "at the end; lorry pretokenize --max-length {} --excess-length drop or split does otherwise",
      rows_longer_than(counts, max_length), format_count(counts.rows), format_count(max_length),
      format_count(counts.longest), max_length);
}

std::string describe_no_end(const TokenCounts& counts) {
  if (counts.rows_without_end == 0) return "";
  const bool one = counts.rows_without_end == 1;
  return fmt::format(
      "{} row{} on no end token: the model will not learn to stop; take a chat template that "
      "writes the model's end token after each answer (lorry import-model --chat-template FILE); "
      "of texts in parts, a part that is learned has to end in it",
      format_count(counts.rows_without_end), one ? " trains" : "s train");
}

std::vector<std::string> describe_losses(const TokenCounts& counts) {
  std::vector<std::string> out;
  for (const auto& [kind, like] : counts.losses) {
    std::string text = fmt::format("the chat template does not show {}: {} row{}, as {}", kind,
                                   format_count(like.rows), like.rows == 1 ? "" : "s", like.first);
    if (kind == chat::name_of(chat::Part::kEarlierReasoning))
      text += "; the model learns to answer there without thinking, which --train-on last avoids";
    if (kind == chat::name_of(chat::Part::kSystem))
      text += "; --system-as-user puts it before the next user message";
    out.push_back(std::move(text));
  }
  return out;
}

std::string describe_lengths(const TokenCounts& counts) {
  if (!counts.has_lengths()) return "";
  const auto at_most = [&](double q) {
    return format_count(std::min(counts.lengths.quantile(q), counts.longest));
  };
  std::string out = fmt::format(
      "tokens a row: {} at the median, 90% at most {}, 99% at most {}, the longest {}; {:.1f}% of "
      "the tokens are trained on",
      at_most(0.5), at_most(0.9), at_most(0.99), format_count(counts.longest),
      100.0 * double(counts.target_tokens) / double(std::max<int64_t>(counts.tokens, 1)));
  std::map<int64_t, int64_t> bars;  // rows by the power of two that their lengths stay below
  for (const auto& [length, rows] : counts.lengths.steps()) {
    bars[int64_t(std::bit_ceil(uint64_t(length) + 1))] += rows;
  }
  int64_t most = 1;
  for (const auto& [below, rows] : bars) most = std::max(most, rows);
  for (int64_t below = bars.begin()->first; below <= bars.rbegin()->first; below *= 2) {
    const int64_t rows = bars[below];
    out += fmt::format("\n  below {:>9} {:>12} {}", format_count(below), format_count(rows),
                       bar(rows, most));
  }
  return out;
}

}  // namespace lorry::stages
