#include "text/tokenizer_config.h"

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "text/pattern.h"

namespace lorry::text {
namespace {

constexpr std::array<const char*, 7> kSpecialNames = {
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};

/// A special token of the configuration: a bare string, or one with flags.
struct Named {
  std::string name;  // "bos_token"; "" for the extra ones
  AddedToken token;
  bool bare = true;
};

// ---- classes that build their own components ----

/// model_type of config.json to the class that is registered for it. Of the types that are not here
/// the class named in tokenizer_config.json decides.
std::string registered_class(const std::string& model_type) {
  static const std::map<std::string_view, std::vector<std::string_view>> kClasses = {
      {"TokenizersBackend",
       {"flex_olmo",
        "glm",
        "glm4",
        "glm4_moe",
        "glm4_moe_lite",
        "gpt_bigcode",
        "granite",
        "granitemoe",
        "granitemoehybrid",
        "granitemoeshared",
        "kimi_k25",
        "kimi_linear",
        "mimo_v2_flash",
        "ministral",
        "ministral3",
        "mistral",
        "mistral3",
        "mistral_large4",
        "mixtral",
        "olmo2",
        "olmo3",
        "olmo_hybrid",
        "persimmon",
        "pixtral",
        "stablelm",
        "voxtral",
        "minicpm3",
        "ernie4_5_moe",
        "phimoe",
        "modernbert",
        "internlm2",
        "llava",
        "nemotron",
        "jamba",
        "llava_next",
        "phi3",
        "iquestcoder",
        "ernie4_5",
        "hyperclovax",
        "phi3_v",
        "arctic",
        "fuyu",
        "smolvlm",
        "minicpmv",
        "internlm3",
        "minimax_m2",
        "molmo",
        "molmo2"}},
      {"GPT2Tokenizer",
       {"codegen", "dbrx", "emu3", "gpt2", "gpt_neo", "gptj", "jais2", "opt", "phi", "starcoder2"}},
      {"Qwen2Tokenizer",
       {"qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "qwen2_audio", "qwen3",
        "qwen3_moe", "qwen3_next", "qwen3_vl", "qwen3_vl_moe", "qwen3_omni_moe", "internvl"}},
      {"Qwen3_5Tokenizer", {"qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text"}},
      {"GPTNeoXTokenizer", {"gpt_neox", "mpt", "olmo", "olmoe", "mamba", "mamba2", "falcon_mamba"}},
      {"CohereTokenizer", {"cohere", "cohere2", "aya_vision"}}};
  for (const auto& [name, types] : kClasses) {
    if (std::find(types.begin(), types.end(), model_type) != types.end()) return std::string(name);
  }
  return "";
}

std::string string_or_empty(const Json& json, const char* name) {
  if (!json.is_object()) return "";
  const auto it = json.find(name);
  return it != json.end() && it->is_string() ? it->get<std::string>() : "";
}

bool brings_components(const std::string& name) {
  static const std::set<std::string> kClasses = {
      "GPT2Tokenizer",    "CodeGenTokenizer", "Qwen2Tokenizer", "Qwen3_5Tokenizer",
      "GPTNeoXTokenizer", "CohereTokenizer",  "LlamaTokenizer"};
  return kClasses.contains(name);
}

bool is_byte_level(const TokenizerParts& parts) {
  const auto names_it = [](const Json& json) {
    return dump_json(json).find("\"ByteLevel\"") != std::string::npos;
  };
  return names_it(parts.pre_tokenizer) || names_it(parts.decoder);
}

/// The class that AutoTokenizer settles on, "" where it takes tokenizer.json as it is.
std::string choose_class(const TokenizerParts& parts) {
  std::string named = string_or_empty(parts.config, "tokenizer_class");
  if (named.empty()) named = string_or_empty(parts.model_config, "tokenizer_class");
  if (named.ends_with("Fast") && named != "PreTrainedTokenizerFast") named.resize(named.size() - 4);
  const std::string registered =
      registered_class(string_or_empty(parts.model_config, "model_type"));
  // Of these types the Hub's files are known to name the wrong class.
  static const std::set<std::string> kRegisteredWins = {"qwen2", "qwen3_5", "qwen3_5_moe",
                                                        "qwen3_5_moe_text"};
  const bool overruled =
      kRegisteredWins.contains(string_or_empty(parts.model_config, "model_type"));
  std::string chosen = named.empty() || overruled ? registered : named;
  if (!named.empty() && registered == "TokenizersBackend") chosen = "";
  // Llama 3's files name the class of Llama 2.
  if (chosen == "LlamaTokenizer" && is_byte_level(parts)) chosen = "";
  return brings_components(chosen) ? chosen : "";
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

/// Llama 2's: SentencePiece's BPE, its spaces written as U+2581.
void set_llama_components(const Json& config, TokenizerPlan& plan) {
  const bool prefix_space = bool_field_or(config, "add_prefix_space", true);
  const bool legacy = bool_field_or(config, "legacy", false);
  plan.pre_tokenizer = {{"type", "Metaspace"},
                        {"replacement", "\u2581"},
                        {"prepend_scheme", !prefix_space ? "never"
                                           : legacy      ? "always"
                                                         : "first"},
                        {"split", false}};
  Json steps = {{{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}},
                {{"type", "ByteFallback"}},
                {{"type", "Fuse"}}};
  if (prefix_space) {
    steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1u}, {"stop", 0u}});
  }
  plan.decoder = {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

void set_own_components(const std::string& name, bool prefix_space, TokenizerPlan& plan) {
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

/// What the class fills in where the configuration is silent.
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

// ---- special tokens ----

Result<AddedToken> parse_added_token(const Json& json, const std::string& where) {
  if (!json.is_object()) return invalid_input(where + " is not an object");
  AddedToken token;
  LORRY_ASSIGN(token.content, string_field(json, "content", where));
  token.special = bool_field_or(json, "special", false);
  token.normalized = bool_field_or(json, "normalized", !token.special);
  token.single_word = bool_field_or(json, "single_word", false);
  token.lstrip = bool_field_or(json, "lstrip", false);
  token.rstrip = bool_field_or(json, "rstrip", false);
  return token;
}

AddedToken bare_token(std::string content) {
  return {.content = std::move(content), .special = true};
}

/// A string or an object with flags; nullopt for anything else.
Result<std::optional<Named>> parse_named(const std::string& name, const Json& value) {
  if (value.is_string()) return std::optional(Named{name, bare_token(value.get<std::string>())});
  if (!value.is_object() || !value.contains("content")) return std::optional<Named>();
  LORRY_ASSIGN(AddedToken token, parse_added_token(value, "tokenizer_config.json: " + name));
  return std::optional(Named{name, std::move(token), false});
}

/// Collects what the configuration says of tokens, in the order in which transformers adds them.
class SpecialTokens {
 public:
  SpecialTokens(const TokenizerParts& parts, const std::string& tokenizer_class)
      : parts_(parts), class_(tokenizer_class), config_(parts.config) {
    if (!config_.is_object()) config_ = Json::object();
  }

  Result<> read() {
    LORRY_TRY(read_decoder());
    LORRY_TRY(read_extra());
    merge_special_tokens_map();
    LORRY_TRY(read_named());
    return {};
  }

  /// What is added on top of `known` (the contents that are added tokens already).
  std::vector<AddedToken> additions(const std::set<std::string>& known) const {
    std::set<std::string> seen = known;
    std::vector<AddedToken> out;
    for (const auto& [id, token] : decoder_) {
      seen.insert(token.content);
      out.push_back(token);
    }
    const size_t from_decoder = out.size();
    const auto add = [&](const Named& n) {
      if (seen.contains(n.token.content) || contains(out, from_decoder, n)) return;
      AddedToken token = n.token;
      if (n.bare) token = bare_token(token.content);
      out.push_back(std::move(token));
    };
    for (const Named& n : named_) add(n);
    for (const Named& n : extra_) add(n);
    for (AddedToken& token : out) {
      token.special |= std::any_of(named_.begin(), named_.end(), [&](const Named& n) {
        return n.token.content == token.content;
      });
    }
    add_by_class(out);
    return out;
  }

  Json map() const {
    Json out = Json::object();
    for (const Named& n : named_) out[n.name] = n.token.content;
    return out;
  }

  bool flag(const char* name) const { return bool_field_or(config_, name, false); }

 private:
  static bool contains(const std::vector<AddedToken>& tokens, size_t from, const Named& n) {
    return std::any_of(tokens.begin() + static_cast<ptrdiff_t>(from), tokens.end(),
                       [&](const AddedToken& t) {
                         return n.bare ? t == bare_token(n.token.content) : t == n.token;
                       });
  }

  /// added_tokens_decoder, or in its absence the added tokens of tokenizer.json.
  Result<> read_decoder() {
    if (const auto it = config_.find("added_tokens_decoder"); it != config_.end()) {
      if (!it->is_object()) {
        return invalid_input("tokenizer_config.json: added_tokens_decoder is not an object");
      }
      for (const auto& [key, value] : it->items()) {
        const std::string where = "tokenizer_config.json: added_tokens_decoder " + key;
        if (key.empty() || key.size() > 9 || key.find_first_not_of("0123456789") != key.npos) {
          return invalid_input(where + ": the key is not an id");
        }
        LORRY_ASSIGN(decoder_[std::stoi(key)], parse_added_token(value, where));
      }
      return {};
    }
    own_decoder_ = false;
    for (const Json& value : parts_.added_tokens) {
      const auto id = value.find("id");
      if (id == value.end() || !id->is_number_integer()) continue;
      LORRY_ASSIGN(decoder_[id->get<int32_t>()],
                   parse_added_token(value, "tokenizer.json: added token"));
    }
    return {};
  }

  /// extra_special_tokens, of old additional_special_tokens; an object names further tokens.
  Result<> read_extra() {
    const auto truthy = [](const Json& j) { return j.is_structured() && !j.empty(); };
    Json extra = config_.value("extra_special_tokens", Json());
    if (!truthy(extra)) extra = config_.value("additional_special_tokens", Json());
    if (extra.is_object()) {
      explicit_ = extra;
    } else {
      LORRY_TRY(add_extra(extra));
    }
    return {};
  }

  Result<> add_extra(const Json& list) {
    if (!list.is_array()) return {};
    for (const Json& value : list) {
      LORRY_ASSIGN(std::optional<Named> n, parse_named("extra_special_tokens", value));
      if (!n) return invalid_input("tokenizer_config.json: an extra special token is no token");
      extra_.push_back(std::move(*n));
    }
    return {};
  }

  /// special_tokens_map.json counts only where there is no added_tokens_decoder.
  void merge_special_tokens_map() {
    if (own_decoder_ || !parts_.special_tokens_map.is_object()) return;
    for (const auto& [key, value] : parts_.special_tokens_map.items()) {
      if (key == "extra_special_tokens" || key == "additional_special_tokens") {
        if (!value.is_array() || (key[0] == 'a' && !extra_.empty())) continue;
        (void)add_extra(value).ok();
        continue;
      }
      config_[key] = value;
      if (value.is_object()) config_[key]["special"] = true;
    }
  }

  Result<> read_named() {
    std::map<std::string, std::string> defaults = default_tokens(class_);
    for (const char* name : kSpecialNames) {
      const auto it = config_.find(name);
      if (it == config_.end()) {
        if (defaults.contains(name)) named_.push_back({name, bare_token(defaults[name])});
        continue;
      }
      if (it->is_null()) continue;
      LORRY_ASSIGN(std::optional<Named> n, parse_named(name, *it));
      if (!n) return invalid_input(std::string("tokenizer_config.json: ") + name + " is no token");
      take_flags_of_added(*n);
      named_.push_back(std::move(*n));
    }
    return read_model_specific();
  }

  /// An added token of the same content decides the flags.
  void take_flags_of_added(Named& n) const {
    for (const auto& [id, token] : decoder_) {
      if (token.content == n.token.content) n.token = token, n.bare = false;
    }
  }

  /// "image_token" and its like: those with flags first, then the strings.
  Result<> read_model_specific() {
    std::vector<Named> strings;
    for (const auto& [key, value] : config_.items()) {
      const bool standard =
          std::find(kSpecialNames.begin(), kSpecialNames.end(), key) != kSpecialNames.end();
      if (standard || !key.ends_with("_token")) continue;
      LORRY_ASSIGN(std::optional<Named> n, parse_named(key, value));
      if (!n) continue;
      if (n->bare) {
        strings.push_back(std::move(*n));
      } else {
        named_.push_back(std::move(*n));
      }
    }
    named_.insert(named_.end(), strings.begin(), strings.end());
    if (!explicit_.is_object()) return {};
    for (const auto& [key, value] : explicit_.items()) {
      LORRY_ASSIGN(std::optional<Named> n, parse_named(key, value));
      if (!n) return invalid_input("tokenizer_config.json: extra special token " + key);
      named_.push_back(std::move(*n));
    }
    return {};
  }

  void add_by_class(std::vector<AddedToken>& out) const {
    if (class_ == "Qwen2Tokenizer") {
      std::set<std::string> seen;
      for (const auto* list : {&named_, &extra_}) {
        for (const Named& n : *list) {
          if (seen.insert(n.token.content).second) out.push_back(bare_token(n.token.content));
        }
      }
    } else if (class_ == "CohereTokenizer") {
      for (const auto* list : {&named_, &extra_}) {
        for (const Named& n : *list) {
          out.push_back(n.token);
          out.back().special = true;
        }
      }
    }
  }

  const TokenizerParts& parts_;
  std::string class_;
  Json config_;
  std::map<int32_t, AddedToken> decoder_;
  bool own_decoder_ = true;
  std::vector<Named> named_, extra_;
  Json explicit_;
};

}  // namespace

Result<TokenizerPlan> plan_tokenizer(const TokenizerParts& parts) {
  TokenizerPlan plan;
  plan.tokenizer_class = choose_class(parts);
  plan.own_components = !plan.tokenizer_class.empty();
  plan.post_processor = parts.post_processor;
  SpecialTokens tokens(parts, plan.tokenizer_class);
  LORRY_TRY(tokens.read());
  std::set<std::string> known;
  if (plan.tokenizer_class == "LlamaTokenizer") {
    set_llama_components(parts.config, plan);
  } else if (plan.own_components) {
    set_own_components(plan.tokenizer_class, tokens.flag("add_prefix_space"), plan);
  } else {
    plan.normalizer = parts.normalizer;
    plan.pre_tokenizer = parts.pre_tokenizer;
    plan.decoder = parts.decoder;
    for (const Json& value : parts.added_tokens) {
      LORRY_ASSIGN(AddedToken token, parse_added_token(value, "tokenizer.json: added token"));
      known.insert(token.content);
      plan.added_tokens.push_back(std::move(token));
    }
  }
  for (AddedToken& token : tokens.additions(known)) plan.added_tokens.push_back(std::move(token));
  plan.special_tokens_map = tokens.map();
  plan.split_special_tokens = tokens.flag("split_special_tokens");
  return plan;
}

}  // namespace lorry::text
