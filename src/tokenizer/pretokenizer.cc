#include "tokenizer/pretokenizer.h"

#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "tokenizer/pattern.h"
#include "tokenizer/pretokenizer_steps.h"

namespace lorry::tokenizer {
namespace {

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// \w without what only Oniguruma has in it, and the two joiners
constexpr std::string_view kWordsPattern =
    R"([[\w&&[^\u00b2\u00b3\u00b9\u00bc-\u00be]]\u200c\u200d]+|)"
    R"([^\s[\w&&[^\u00b2\u00b3\u00b9\u00bc-\u00be]]\u200c\u200d]+)";

Result<SplitBehavior> parse_behavior(const Json& json, std::string_view where) {
  static const std::map<std::string_view, SplitBehavior> kNames = {
      {"Isolated", SplitBehavior::kIsolated},
      {"Removed", SplitBehavior::kRemoved},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  LORRY_ASSIGN(const std::string name, string_field(json, "behavior", where));
  const auto it = kNames.find(name);
  if (it == kNames.end()) {
    return unsupported(std::string(where) + ": behavior '" + name + "' is not supported");
  }
  return it->second;
}

using Steps = std::vector<std::unique_ptr<const PreTokenizerStep>>;

Result<> add_regex(Steps& steps, std::string_view pattern, SplitBehavior behavior, bool invert) {
  LORRY_ASSIGN(Regex regex, Regex::compile(pattern));
  steps.push_back(make_regex_split(std::move(regex), behavior, invert));
  return {};
}

Result<> add_metaspace(Steps& steps, const Json& json, const std::string& where) {
  LORRY_ASSIGN(const std::string replacement, string_field(json, "replacement", where));
  if (replacement.empty()) return invalid_input(where + ": empty replacement");
  PrependScheme scheme = PrependScheme::kAlways;
  if (const auto it = json.find("prepend_scheme"); it != json.end() && it->is_string()) {
    const auto& name = it->get_ref<const std::string&>();
    if (name == "first") {
      scheme = PrependScheme::kFirst;
    } else if (name == "never") {
      scheme = PrependScheme::kNever;
    } else if (name != "always") {
      return unsupported(where + ": prepend_scheme '" + name + "' is not supported");
    }
  }
  if (!bool_field_or(json, "add_prefix_space", true)) scheme = PrependScheme::kNever;
  steps.push_back(make_metaspace(replacement, scheme));
  if (bool_field_or(json, "split", true)) {
    steps.push_back(make_set_split(CodePointSet::of(decode_utf8(replacement.data()).code_point),
                                   SplitBehavior::kMergedWithNext));
  }
  return {};
}

}  // namespace

Result<PreTokenizer> PreTokenizer::parse(const Json& json, bool takes_bytes) {
  PreTokenizer out;
  if (!json.is_null()) LORRY_TRY(out.add(json, takes_bytes));
  return out;
}

Result<> PreTokenizer::add_byte_level(const Json& json, bool last) {
  LORRY_ASSIGN(const bool prefix,
               bool_field(json, "add_prefix_space", "tokenizer.json: pre_tokenizer ByteLevel"));
  if (prefix) {
    steps_.push_back(make_prefix_space());
    runs_.clear();
  }
  if (bool_field_or(json, "use_regex", true)) {
    LORRY_ASSIGN(Regex pattern, Regex::compile(kGpt2Pattern));
    add_isolated(std::move(pattern));
  }
  if (!last) {
    steps_.push_back(make_byte_chars());
    runs_.clear();
  }
  return {};
}

/// Steps that cut at runs are taken over by the pattern that follows them, where it can.
void PreTokenizer::add_isolated(Regex pattern) {
  if (auto runs = pattern.runs()) {
    runs_.push_back(*std::move(runs));
  } else {
    if (!runs_.empty() && pattern.split_after(runs_)) steps_.resize(steps_.size() - runs_.size());
    runs_.clear();
  }
  steps_.push_back(make_regex_split(std::move(pattern), SplitBehavior::kIsolated, false));
}

Result<> PreTokenizer::add(const Json& json, bool last) {
  const std::string type = type_of(json);
  const std::string where = "tokenizer.json: pre_tokenizer " + type;
  if (type == "Sequence") {
    const auto list = json.find("pretokenizers");
    if (list == json.end() || !list->is_array()) {
      return invalid_input(where + ": no list 'pretokenizers'");
    }
    for (size_t i = 0; i < list->size(); ++i) {
      LORRY_TRY(add((*list)[i], last && i + 1 == list->size()));
    }
    return {};
  }
  if (type == "ByteLevel") {
    byte_level_ = last;
    return add_byte_level(json, last);
  }
  if (type == "Split") {
    LORRY_ASSIGN(Regex pattern, parse_pattern(json, where));
    LORRY_ASSIGN(const SplitBehavior behavior, parse_behavior(json, where));
    LORRY_ASSIGN(const bool invert, bool_field(json, "invert", where));
    if (behavior == SplitBehavior::kIsolated) {
      add_isolated(std::move(pattern));
      return {};
    }
    runs_.clear();
    steps_.push_back(make_regex_split(std::move(pattern), behavior, invert));
    return {};
  }
  if (type == "Digits") {
    const bool each = bool_field_or(json, "individual_digits", false);
    steps_.push_back(make_set_split(numeric_set(),
                                    each ? SplitBehavior::kIsolated : SplitBehavior::kContiguous));
    runs_.push_back({numeric_set(), each ? 1 : Regex::kUnbounded});
    return {};
  }
  runs_.clear();
  if (type == "Punctuation") {
    SplitBehavior behavior = SplitBehavior::kIsolated;
    if (json.contains("behavior")) {
      LORRY_ASSIGN(behavior, parse_behavior(json, where));
    }
    steps_.push_back(make_set_split(punctuation_set(), behavior));
    return {};
  }
  if (type == "Whitespace") {
    return add_regex(steps_, kWordsPattern, SplitBehavior::kRemoved, true);
  }
  if (type == "WhitespaceSplit") {
    steps_.push_back(make_set_split(whitespace_set(), SplitBehavior::kRemoved));
    return {};
  }
  if (type == "BertPreTokenizer") {
    steps_.push_back(make_set_split(whitespace_set(), SplitBehavior::kRemoved));
    steps_.push_back(make_set_split(punctuation_set(), SplitBehavior::kIsolated));
    return {};
  }
  if (type == "UnicodeScripts") {
    steps_.push_back(make_script_split());
    return {};
  }
  if (type == "Metaspace") {
    needs_spans_ = true;
    return add_metaspace(steps_, json, where);
  }
  if (type == "CharDelimiterSplit") {
    LORRY_ASSIGN(const std::string delimiter, string_field(json, "delimiter", where));
    if (delimiter.empty()) return invalid_input(where + ": empty delimiter");
    steps_.push_back(make_set_split(CodePointSet::of(decode_utf8(delimiter.data()).code_point),
                                    SplitBehavior::kRemoved));
    return {};
  }
  if (type == "FixedLength") {
    const auto length = json.find("length");
    const int64_t n =
        length != json.end() && length->is_number_integer() ? length->get<int64_t>() : 5;
    if (n < 1) return invalid_input(where + ": length below 1");
    steps_.push_back(make_fixed_length(static_cast<size_t>(n)));
    return {};
  }
  return unsupported("tokenizer.json: pre_tokenizer '" + type + "' is not supported");
}

void PreTokenizer::split(AlignedText& text, std::vector<Piece>& pieces, bool keep_spans) const {
  pieces.clear();
  if (text.text().empty()) return;
  pieces.push_back({0, text.text().size()});
  thread_local std::vector<Piece> next;
  for (const auto& step : steps_) {
    next.clear();
    step->apply(text, pieces, next, keep_spans);
    pieces.swap(next);
  }
}

}  // namespace lorry::tokenizer
