#include "tokenizer/tokenizer_classes.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "tokenizer/pattern.h"
#include "tokenizer/tokenizer_class_names.h"

namespace lorry::tokenizer {
namespace {

std::string string_or_empty(const Json& json, const char* name) {
  if (!json.is_object()) return "";
  const auto it = json.find(name);
  return it != json.end() && it->is_string() ? it->get<std::string>() : "";
}

/// The kind of model that a class makes of the file's vocabulary; "" for classes that bring
/// nothing.
std::string_view model_of(const std::string& name) {
  static const std::map<std::string_view, std::string_view> kModels = {
      {"RobertaTokenizer", "BPE"},       {"AlbertTokenizer", "Unigram"},
      {"DebertaV2Tokenizer", "Unigram"}, {"GPT2Tokenizer", "BPE"},
      {"CodeGenTokenizer", "BPE"},       {"Qwen2Tokenizer", "BPE"},
      {"Qwen3_5Tokenizer", "BPE"},       {"GPTNeoXTokenizer", "BPE"},
      {"CohereTokenizer", "BPE"},        {"LlamaTokenizer", "BPE"},
      {"CodeLlamaTokenizer", "BPE"},     {"GemmaTokenizer", "BPE"},
      {"T5Tokenizer", "Unigram"},        {"XLMRobertaTokenizer", "Unigram"},
      {"BertTokenizer", "WordPiece"}};
  const auto it = kModels.find(name);
  return it == kModels.end() ? "" : it->second;
}

bool is_byte_level(const TokenizerParts& parts) {
  const auto names_it = [](const Json& json) {
    return dump_json(json).find("\"ByteLevel\"") != std::string::npos;
  };
  return names_it(parts.pre_tokenizer) || names_it(parts.decoder);
}

Json byte_level(bool prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Json sequence_of(Json first, Json second) {
  return {{"type", "Sequence"}, {"pretokenizers", {std::move(first), std::move(second)}}};
}

Json split_at(const char* pattern) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

Json replace(const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

Json metaspace(const char* scheme, bool split) {
  return {{"type", "Metaspace"},
          {"replacement", "\u2581"},
          {"prepend_scheme", scheme},
          {"split", split}};
}

/// SentencePiece's BPE back into text; `prefix_space`: one was put before it.
Json sentencepiece_decoder(bool prefix_space) {
  Json steps = {replace("\u2581", " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
  if (prefix_space) {
    steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1u}, {"stop", 0u}});
  }
  return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

/// Llama 2's: SentencePiece's BPE, its spaces written as U+2581.
void set_llama_components(const TokenizerParts& parts, TokenizerPlan& plan) {
  const bool code = plan.tokenizer_class == "CodeLlamaTokenizer";
  const bool prefix_space = bool_field_or(parts.config, "add_prefix_space", true);
  const bool legacy = !code && bool_field_or(parts.config, "legacy", false);
  plan.pre_tokenizer = metaspace(!prefix_space ? "never" : legacy ? "always" : "first", false);
  plan.decoder = sentencepiece_decoder(prefix_space || code);
  plan.model.fuse_unknown = plan.model.byte_fallback = true;
  if (code) plan.wrapper = {.before = {"bos_token"}, .after = {}};
}

void set_gemma_components(TokenizerPlan& plan) {
  plan.normalizer = replace(" ", "\u2581");
  plan.pre_tokenizer = {{"type", "Split"},
                        {"pattern", {{"String", " "}}},
                        {"behavior", "MergedWithPrevious"},
                        {"invert", false}};
  plan.decoder = sentencepiece_decoder(false);
  plan.model.fuse_unknown = plan.model.byte_fallback = true;
}

/// The first Precompiled among the file's normalizers; null if there is none.
Json precompiled_of(const Json& normalizer) {
  if (type_of(normalizer) == "Precompiled") return normalizer;
  if (type_of(normalizer) != "Sequence" || !normalizer.contains("normalizers")) return nullptr;
  for (const Json& step : normalizer["normalizers"]) {
    if (type_of(step) == "Precompiled") return step;
  }
  return nullptr;
}

/// T5's and XLM-R's: SentencePiece's unigrams.
void set_unigram_components(const TokenizerParts& parts, TokenizerPlan& plan) {
  const bool t5 = plan.tokenizer_class == "T5Tokenizer";
  const bool prefix_space = t5 || bool_field_or(parts.config, "add_prefix_space", true);
  const char* scheme = prefix_space ? "always" : "never";
  plan.normalizer = precompiled_of(parts.normalizer);
  plan.pre_tokenizer = sequence_of({{"type", "WhitespaceSplit"}}, metaspace(scheme, true));
  plan.decoder = metaspace(scheme, true);
  plan.model.unigram_unk = t5 ? 2 : 3;
  plan.wrapper = t5 ? TokenWrapper{.before = {}, .after = {"eos_token"}}
                    : TokenWrapper{.before = {"bos_token"}, .after = {"eos_token"}};
}

/// Whatever the post-processor of the file is.
void wrap_in_cls_and_sep(TokenizerPlan& plan) {
  plan.wrapper = {.before = {"cls_token"}, .after = {"sep_token"}};
}

void set_albert_components(const TokenizerParts& parts, TokenizerPlan& plan) {
  Json steps = {replace("``", "\""), replace("''", "\"")};
  if (!bool_field_or(parts.config, "keep_accents", false)) {
    steps.push_back({{"type", "NFKD"}});
    steps.push_back({{"type", "StripAccents"}});
  }
  if (bool_field_or(parts.config, "do_lower_case", true)) steps.push_back({{"type", "Lowercase"}});
  if (Json map = precompiled_of(parts.normalizer); !map.is_null()) steps.push_back(std::move(map));
  const char* scheme = bool_field_or(parts.config, "add_prefix_space", true) ? "always" : "never";
  plan.normalizer = {{"type", "Sequence"}, {"normalizers", std::move(steps)}};
  plan.pre_tokenizer = sequence_of({{"type", "WhitespaceSplit"}}, metaspace(scheme, true));
  plan.decoder = metaspace(scheme, true);
  plan.model.unigram_unk = 1;
  if (plan.post_processor.is_null()) wrap_in_cls_and_sep(plan);
}

void set_deberta_v2_components(const TokenizerParts& parts, TokenizerPlan& plan) {
  Json steps = Json::array();
  if (bool_field_or(parts.config, "do_lower_case", false)) {
    steps.push_back({{"type", "Lowercase"}});
  }
  steps.push_back(
      {{"type", "Replace"}, {"pattern", {{"Regex", R"(\s{2,}|[\n\r\t])"}}}, {"content", " "}});
  steps.push_back({{"type", "NFC"}});
  steps.push_back({{"type", "Strip"}, {"strip_left", false}, {"strip_right", true}});
  plan.normalizer = {{"type", "Sequence"}, {"normalizers", std::move(steps)}};
  const char* scheme = bool_field_or(parts.config, "add_prefix_space", true) ? "always" : "first";
  plan.pre_tokenizer = metaspace(scheme, true);
  if (bool_field_or(parts.config, "split_by_punct", false)) {
    Json punctuation = {{"type", "Punctuation"}, {"behavior", "Isolated"}};
    plan.pre_tokenizer = sequence_of(std::move(punctuation), std::move(plan.pre_tokenizer));
  }
  plan.decoder = metaspace(scheme, true);
  wrap_in_cls_and_sep(plan);
}

void set_roberta_components(const TokenizerParts& parts, TokenizerPlan& plan) {
  plan.normalizer = nullptr;
  plan.pre_tokenizer = byte_level(bool_field_or(parts.config, "add_prefix_space", false), true);
  plan.decoder = byte_level(true, true);
  wrap_in_cls_and_sep(plan);
}

void set_bert_components(const TokenizerParts& parts, TokenizerPlan& plan) {
  const Json& config = parts.config;
  plan.normalizer = {
      {"type", "BertNormalizer"},
      {"clean_text", true},
      {"handle_chinese_chars", bool_field_or(config, "tokenize_chinese_chars", true)},
      {"lowercase", bool_field_or(config, "do_lower_case", true)}};
  const auto strip = config.is_object() ? config.find("strip_accents") : config.end();
  if (config.is_object() && strip != config.end()) plan.normalizer["strip_accents"] = *strip;
  plan.pre_tokenizer = {{"type", "BertPreTokenizer"}};
  plan.decoder = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  plan.wrapper = {.before = {"cls_token"}, .after = {"sep_token"}};
}

void set_byte_level_components(const TokenizerParts& parts, TokenizerPlan& plan) {
  const std::string& name = plan.tokenizer_class;
  const bool prefix_space = bool_field_or(parts.config, "add_prefix_space", false);
  constexpr const char* kQwen2 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
      R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
  constexpr const char* kQwen35 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|)"
      R"( ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  plan.normalizer = {{"type", "NFC"}};
  plan.decoder = byte_level(true, true);
  if (name == "Qwen2Tokenizer") {
    plan.pre_tokenizer = sequence_of(split_at(kQwen2), byte_level(prefix_space, false));
  } else if (name == "Qwen3_5Tokenizer") {
    plan.pre_tokenizer = sequence_of(split_at(kQwen35), byte_level(prefix_space, false));
  } else if (name == "CohereTokenizer") {
    Json digits = {{"type", "Digits"}, {"individual_digits", true}};
    plan.pre_tokenizer = sequence_of(std::move(digits), byte_level(prefix_space, true));
  } else {
    plan.pre_tokenizer = byte_level(prefix_space, true);
    if (name != "GPTNeoXTokenizer") {
      plan.normalizer = nullptr;
    } else {
      plan.post_processor = nullptr;  // made anew, and the file's add_bos_token never reaches it
    }
  }
}

}  // namespace

Result<std::string> choose_class(const TokenizerParts& parts) {
  std::string named = string_or_empty(parts.config, "tokenizer_class");
  if (named.empty()) named = string_or_empty(parts.model_config, "tokenizer_class");
  if (named.ends_with("Fast") && named != "PreTrainedTokenizerFast") named.resize(named.size() - 4);
  const std::string registered =
      registered_class(string_or_empty(parts.model_config, "model_type"));
  // Of these types the Hub's files are known to name the wrong class.
  static const std::set<std::string> kRegisteredWins = {
      "hyperclovax_vision_v2", "qwen2",     "qwen3_5", "qwen3_5_moe",
      "qwen3_5_moe_text",      "qwen4_exp", "siglip2"};
  const bool overruled =
      kRegisteredWins.contains(string_or_empty(parts.model_config, "model_type"));
  std::string chosen = named.empty() || overruled ? registered : named;
  if (!named.empty() && registered == "TokenizersBackend") chosen = "";
  // Llama 3's files name the class of Llama 2.
  if (!named.empty() && chosen == "LlamaTokenizer" && is_byte_level(parts)) chosen = "";
  chosen = class_behind(chosen);
  if (is_unsupported_class(chosen)) {
    return unsupported("tokenizer_config.json: the tokenizer_class " + chosen +
                       ", which brings components of its own, is not supported");
  }
  return model_of(chosen) == parts.model_type ? chosen : "";
}

void set_class_components(const TokenizerParts& parts, const Json& special_tokens_map,
                          TokenizerPlan& plan) {
  const std::string& name = plan.tokenizer_class;
  plan.model.own_options = true;
  if (name == "LlamaTokenizer" || name == "CodeLlamaTokenizer") {
    set_llama_components(parts, plan);
  } else if (name == "GemmaTokenizer") {
    set_gemma_components(plan);
  } else if (name == "T5Tokenizer" || name == "XLMRobertaTokenizer") {
    set_unigram_components(parts, plan);
  } else if (name == "BertTokenizer") {
    set_bert_components(parts, plan);
  } else if (name == "AlbertTokenizer") {
    set_albert_components(parts, plan);
  } else if (name == "DebertaV2Tokenizer") {
    set_deberta_v2_components(parts, plan);
  } else if (name == "RobertaTokenizer") {
    set_roberta_components(parts, plan);
  } else {
    set_byte_level_components(parts, plan);
  }
  const bool names_unknown =
      name == "CodeLlamaTokenizer" || name == "GemmaTokenizer" || name == "BertTokenizer";
  if (names_unknown && special_tokens_map.contains("unk_token")) {
    plan.model.unk_token = special_tokens_map["unk_token"].get<std::string>();
  }
}

std::map<std::string, std::string> default_tokens(const std::string& name) {
  const std::string end = "<|endoftext|>";
  if (name == "Qwen2Tokenizer" || name == "Qwen3_5Tokenizer") {
    return {{"unk_token", end}, {"eos_token", end}, {"pad_token", end}};
  }
  if (name == "GPT2Tokenizer" || name == "CodeGenTokenizer") {
    return {{"unk_token", end}, {"bos_token", end}, {"eos_token", end}};
  }
  if (name == "GPTNeoXTokenizer") {
    return {
        {"unk_token", end}, {"bos_token", end}, {"eos_token", end}, {"pad_token", "<|padding|>"}};
  }
  if (name == "CodeLlamaTokenizer") {
    return {{"unk_token", "<unk>"},          {"bos_token", "<s>"},
            {"eos_token", "</s>"},           {"prefix_token", "\u2581<PRE>"},
            {"middle_token", "\u2581<MID>"}, {"suffix_token", "\u2581<SUF>"},
            {"eot_token", "\u2581<EOT>"},    {"fill_token", "<FILL_ME>"}};
  }
  if (name == "GemmaTokenizer") {
    return {{"unk_token", "<unk>"},
            {"bos_token", "<bos>"},
            {"eos_token", "<eos>"},
            {"pad_token", "<pad>"},
            {"mask_token", "<mask>"}};
  }
  if (name == "T5Tokenizer") {
    return {{"unk_token", "<unk>"}, {"eos_token", "</s>"}, {"pad_token", "<pad>"}};
  }
  if (name == "XLMRobertaTokenizer" || name == "RobertaTokenizer") {
    return {{"bos_token", "<s>"},    {"eos_token", "</s>"},  {"sep_token", "</s>"},
            {"cls_token", "<s>"},    {"unk_token", "<unk>"}, {"pad_token", "<pad>"},
            {"mask_token", "<mask>"}};
  }
  if (name == "AlbertTokenizer" || name == "DebertaV2Tokenizer") {
    return {{"bos_token", "[CLS]"},
            {"eos_token", "[SEP]"},
            {"unk_token", name == "AlbertTokenizer" ? "<unk>" : "[UNK]"},
            {"sep_token", "[SEP]"},
            {"pad_token", name == "AlbertTokenizer" ? "<pad>" : "[PAD]"},
            {"cls_token", "[CLS]"},
            {"mask_token", "[MASK]"}};
  }
  if (name == "BertTokenizer") {
    return {{"unk_token", "[UNK]"},
            {"sep_token", "[SEP]"},
            {"pad_token", "[PAD]"},
            {"cls_token", "[CLS]"},
            {"mask_token", "[MASK]"}};
  }
  if (name == "LlamaTokenizer") {
    return {{"unk_token", "<unk>"}, {"bos_token", "<s>"}, {"eos_token", "</s>"}};
  }
  if (name == "CohereTokenizer") {
    return {{"unk_token", "<UNK>"},        {"bos_token", "<BOS_TOKEN>"},
            {"pad_token", "<PAD>"},        {"eos_token", "<|END_OF_TURN_TOKEN|>"},
            {"cls_token", "<CLS>"},        {"sep_token", "<SEP>"},
            {"mask_token", "<MASK_TOKEN>"}};
  }
  return {};
}

std::vector<std::string> class_extra_tokens(const std::string& name, const Json& config,
                                            const std::vector<std::string>& extra) {
  std::vector<std::string> out;
  if (name == "T5Tokenizer") {
    const bool has_ids = std::any_of(extra.begin(), extra.end(), [](const std::string& token) {
      return token.find("<extra_id_") != token.npos;
    });
    const auto count = config.find("extra_ids");
    const int64_t n =
        count != config.end() && count->is_number_integer() ? count->get<int64_t>() : 100;
    for (int64_t i = 0; !has_ids && i < std::min<int64_t>(n, 10'000); ++i) {
      out.push_back(fmt::format("<extra_id_{}>", i));
    }
  }
  return out;
}

}  // namespace lorry::tokenizer
