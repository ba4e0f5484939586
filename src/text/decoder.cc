#include "text/decoder.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "text/byte_chars.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace lorry::text {
namespace {

using Tokens = std::vector<std::string>;

void join(Tokens& tokens) {
  std::string all;
  for (const std::string& t : tokens) all += t;
  tokens.assign(1, std::move(all));
}

class ByteLevelDecoder : public DecoderStep {
 public:
  void apply(Tokens& tokens) const override {
    for (std::string& t : tokens) t = Decoder::token_bytes(t);
    join(tokens);
    tokens[0] = replace_invalid_utf8(tokens[0]);
  }
};

class Fuse : public DecoderStep {
 public:
  void apply(Tokens& tokens) const override { join(tokens); }
};

class ReplaceDecoder : public DecoderStep {
 public:
  ReplaceDecoder(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  void apply(Tokens& tokens) const override {
    for (std::string& token : tokens) {
      if (token.empty()) continue;
      Regex::Iterator matches(pattern_, token);
      std::string out;
      size_t done = 0;
      for (Regex::Match m; matches.next(m); done = m.end) {
        out.append(token, done, m.begin - done);
        out += content_;
      }
      out.append(token, done);
      token = std::move(out);
    }
  }

 private:
  Regex pattern_;
  std::string content_;
};

class ByteFallback : public DecoderStep {
 public:
  void apply(Tokens& tokens) const override {
    Tokens out;
    std::string bytes;
    const auto flush = [&] {
      if (bytes.empty()) return;
      if (is_valid_utf8(bytes)) {
        out.push_back(bytes);
      } else {
        out.insert(out.end(), bytes.size(), "\xEF\xBF\xBD");
      }
      bytes.clear();
    };
    for (std::string& token : tokens) {
      if (const auto byte = byte_of(token)) {
        bytes += *byte;
      } else {
        flush();
        out.push_back(std::move(token));
      }
    }
    flush();
    tokens = std::move(out);
  }

 private:
  /// <0x61> is 'a'.
  static std::optional<char> byte_of(std::string_view t) {
    if (t.size() != 6 || !t.starts_with("<0x") || t[5] != '>') return std::nullopt;
    int value = 0;
    for (const char c : t.substr(3, 2)) {
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                               : -1;
      if (digit < 0) return std::nullopt;
      value = value * 16 + digit;
    }
    return static_cast<char>(value);
  }
};

class StripDecoder : public DecoderStep {
 public:
  StripDecoder(std::string content, size_t start, size_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}

  void apply(Tokens& tokens) const override {
    for (std::string& token : tokens) {
      std::string_view t = token;
      for (size_t i = 0; i < start_ && t.starts_with(content_); ++i) {
        t.remove_prefix(content_.size());
      }
      for (size_t i = 0; i < stop_ && t.ends_with(content_); ++i) t.remove_suffix(content_.size());
      token = std::string(t);
    }
  }

 private:
  std::string content_;
  size_t start_, stop_;
};

class MetaspaceDecoder : public DecoderStep {
 public:
  MetaspaceDecoder(std::string replacement, bool prepended)
      : replacement_(std::move(replacement)), prepended_(prepended) {}

  void apply(Tokens& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::string out;
      for (size_t k = 0; k < tokens[i].size();) {
        if (tokens[i].compare(k, replacement_.size(), replacement_) == 0) {
          if (i != 0 || !prepended_) out += ' ';
          k += replacement_.size();
        } else {
          out += tokens[i][k++];
        }
      }
      tokens[i] = std::move(out);
    }
  }

 private:
  std::string replacement_;
  bool prepended_;
};

class BpeDecoder : public DecoderStep {
 public:
  explicit BpeDecoder(std::string suffix) : suffix_(std::move(suffix)) {}

  void apply(Tokens& tokens) const override {
    for (size_t i = 0; !suffix_.empty() && i < tokens.size(); ++i) {
      const std::string_view space = i + 1 == tokens.size() ? "" : " ";
      std::string out;
      size_t done = 0;
      for (size_t at; (at = tokens[i].find(suffix_, done)) != std::string::npos;) {
        out.append(tokens[i], done, at - done).append(space);
        done = at + suffix_.size();
      }
      tokens[i] = out.append(tokens[i], done);
    }
  }

 private:
  std::string suffix_;
};

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  std::string out;
  size_t done = 0;
  for (size_t at; (at = text.find(from, done)) != text.npos; done = at + from.size()) {
    out.append(text, done, at - done).append(to);
  }
  if (done) text = out.append(text, done);
}

/// English as BERT's decoder puts it together.
void clean_up(std::string& text) {
  constexpr std::pair<std::string_view, std::string_view> kChanges[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kChanges) replace_all(text, from, to);
}

class WordPieceDecoder : public DecoderStep {
 public:
  WordPieceDecoder(std::string prefix, bool cleanup)
      : prefix_(std::move(prefix)), cleanup_(cleanup) {}

  void apply(Tokens& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::string& token = tokens[i];
      if (i != 0) {
        if (token.starts_with(prefix_)) {
          token.erase(0, prefix_.size());
        } else {
          token = std::string(" ").append(token);
        }
      }
      if (cleanup_) clean_up(token);
    }
  }

 private:
  std::string prefix_;
  bool cleanup_;
};

class CtcDecoder : public DecoderStep {
 public:
  CtcDecoder(std::string pad, std::string delimiter, bool cleanup)
      : pad_(std::move(pad)), delimiter_(std::move(delimiter)), cleanup_(cleanup) {}

  void apply(Tokens& tokens) const override {
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    for (std::string& token : tokens) {
      replace_all(token, pad_, "");
      if (!cleanup_) continue;
      clean_up(token);
      replace_all(token, delimiter_, " ");
    }
    std::erase(tokens, "");
  }

 private:
  std::string pad_, delimiter_;
  bool cleanup_;
};

/// Whether Replace leaves byte tokens what they are, and makes none.
bool spares_byte_tokens(const Json& json, std::string_view content) {
  const Json& pattern = json["pattern"];
  const auto literal = pattern.find("String");
  if (literal == pattern.end()) return false;
  constexpr const char* kOfByteTokens = "<>x0123456789abcdefABCDEF";
  const auto& from = literal->get_ref<const std::string&>();
  return from.find_first_of(kOfByteTokens) == from.npos &&
         content.find_first_of("<>") == content.npos;
}

size_t count_field(const Json& json, const char* name) {
  const auto it = json.find(name);
  return it != json.end() && it->is_number_unsigned() ? it->get<size_t>() : 0;
}

}  // namespace

std::string Decoder::token_bytes(std::string_view token) {
  auto bytes = chars_to_bytes(token);
  return bytes ? std::move(*bytes) : std::string(token);
}

Result<Decoder> Decoder::parse(const Json& json) {
  Decoder out;
  if (json.is_null()) {
    out.join_with_spaces_ = true;
    return out;
  }
  LORRY_TRY(out.add(json));
  if (type_of(json) == "ByteLevel") out.byte_level_ = true;
  return out;
}

Result<> Decoder::add(const Json& json) {
  const std::string type = type_of(json);
  const std::string where = "tokenizer.json: decoder " + type;
  const bool joined = fused_;
  if (joined && type != "Sequence" && type != "Fuse" && type != "Strip") local_ = false;
  if (type == "Sequence") {
    const auto list = json.find("decoders");
    if (list == json.end() || !list->is_array())
      return invalid_input(where + ": no list 'decoders'");
    for (const Json& item : *list) LORRY_TRY(add(item));
  } else if (type == "ByteLevel") {
    steps_.push_back(std::make_unique<ByteLevelDecoder>());
    local_ = false;
    fused_ = true;
  } else if (type == "Fuse") {
    steps_.push_back(std::make_unique<Fuse>());
    fused_ = true;
  } else if (type == "ByteFallback") {
    steps_.push_back(std::make_unique<ByteFallback>());
  } else if (type == "Replace") {
    LORRY_ASSIGN(Regex pattern, parse_pattern(json, where));
    LORRY_ASSIGN(std::string content, string_field(json, "content", where));
    if (!spares_byte_tokens(json, content)) local_ = false;
    steps_.push_back(std::make_unique<ReplaceDecoder>(std::move(pattern), std::move(content)));
  } else if (type == "Strip") {
    LORRY_ASSIGN(std::string content, string_field(json, "content", where));
    if (content.empty()) return invalid_input(where + ": empty content");
    if (joined ? count_field(json, "stop") > 0 : content.find_first_of("<>") != content.npos) {
      local_ = false;
    }
    steps_.push_back(std::make_unique<StripDecoder>(std::move(content), count_field(json, "start"),
                                                    count_field(json, "stop")));
  } else if (type == "Metaspace") {
    LORRY_ASSIGN(std::string replacement, string_field(json, "replacement", where));
    if (replacement.empty()) return invalid_input(where + ": empty replacement");
    const auto scheme = json.find("prepend_scheme");
    const bool never = (scheme != json.end() && *scheme == "never") ||
                       !bool_field_or(json, "add_prefix_space", true);
    steps_.push_back(std::make_unique<MetaspaceDecoder>(std::move(replacement), !never));
  } else if (type == "BPEDecoder") {
    LORRY_ASSIGN(std::string suffix, string_field(json, "suffix", where));
    local_ = false;
    steps_.push_back(std::make_unique<BpeDecoder>(std::move(suffix)));
  } else if (type == "WordPiece") {
    LORRY_ASSIGN(std::string prefix, string_field(json, "prefix", where));
    LORRY_ASSIGN(const bool cleanup, bool_field(json, "cleanup", where));
    steps_.push_back(std::make_unique<WordPieceDecoder>(std::move(prefix), cleanup));
  } else if (type == "CTC") {
    LORRY_ASSIGN(std::string pad, string_field(json, "pad_token", where));
    local_ = false;
    LORRY_ASSIGN(std::string delimiter, string_field(json, "word_delimiter_token", where));
    LORRY_ASSIGN(const bool cleanup, bool_field(json, "cleanup", where));
    steps_.push_back(std::make_unique<CtcDecoder>(std::move(pad), std::move(delimiter), cleanup));
  } else {
    return unsupported("tokenizer.json: decoder '" + type + "' is not supported");
  }
  return {};
}

std::string Decoder::decode(std::vector<std::string> tokens) const {
  for (const auto& step : steps_) {
    if (!tokens.empty()) step->apply(tokens);
  }
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (join_with_spaces_ && i) out += ' ';
    out += tokens[i];
  }
  return out;
}

}  // namespace lorry::text
