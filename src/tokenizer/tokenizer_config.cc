#include "tokenizer/tokenizer_config.h"

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "tokenizer/pattern.h"
#include "tokenizer/tokenizer_classes.h"

namespace lorry::tokenizer {
namespace {

constexpr std::array<const char*, 7> kSpecialNames = {
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};

/// A special token of the configuration: a bare string, or one with flags.
struct Named {
  std::string name;  // "bos_token"; "" for the extra ones
  AddedToken token;
  bool bare = true;
};

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
    std::vector<std::string> contents;
    for (const Named& n : extra_) contents.push_back(n.token.content);
    for (std::string& token : class_extra_tokens(class_, config_, contents)) {
      extra_.push_back({"", bare_token(std::move(token))});
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
    Json tokens = config_;
    for (const auto& [name, content] : default_tokens(class_)) {
      if (!tokens.contains(name)) tokens[name] = content;
    }
    for (const auto& [key, value] : tokens.items()) {
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
    if (class_ == "CodeLlamaTokenizer") sort_as_code_llama(strings);
    named_.insert(named_.end(), strings.begin(), strings.end());
    if (!explicit_.is_object()) return {};
    for (const auto& [key, value] : explicit_.items()) {
      LORRY_ASSIGN(std::optional<Named> n, parse_named(key, value));
      if (!n) return invalid_input("tokenizer_config.json: extra special token " + key);
      named_.push_back(std::move(*n));
    }
    return {};
  }

  /// That class hands its tokens on in this order, before others.
  static void sort_as_code_llama(std::vector<Named>& tokens) {
    static constexpr std::array<const char*, 5> kOrder = {
        "prefix_token", "middle_token", "suffix_token", "eot_token", "fill_token"};
    const auto rank = [](const Named& n) {
      return std::find(kOrder.begin(), kOrder.end(), n.name) - kOrder.begin();
    };
    std::stable_sort(tokens.begin(), tokens.end(),
                     [&](const Named& a, const Named& b) { return rank(a) < rank(b); });
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
  LORRY_ASSIGN(plan.tokenizer_class, choose_class(parts));
  plan.post_processor = parts.post_processor;
  SpecialTokens tokens(parts, plan.tokenizer_class);
  LORRY_TRY(tokens.read());
  plan.special_tokens_map = tokens.map();
  std::set<std::string> known;
  if (!plan.tokenizer_class.empty()) {
    set_class_components(parts, plan.special_tokens_map, plan);
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
  plan.split_special_tokens = tokens.flag("split_special_tokens");
  return plan;
}

}  // namespace lorry::tokenizer
