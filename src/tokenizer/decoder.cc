#include "tokenizer/decoder.h"

#include <nlohmann/json.hpp>

#include "tokenizer/byte_chars.h"
#include "tokenizer/decoder_steps.h"
#include "tokenizer/pattern.h"
#include "tokenizer/unicode.h"

namespace lorry::tokenizer {
namespace {

using Change = std::function<std::string(std::string)>;

size_t count_field(const Json& json, const char* name) {
  const auto it = json.find(name);
  return it != json.end() && it->is_number_unsigned() ? it->get<size_t>() : 0;
}

/// The pattern where it is a string; "" if it is an expression.
std::string literal_of(const Json& json) {
  const auto it = json["pattern"].find("String");
  return it == json["pattern"].end() ? "" : it->get<std::string>();
}

struct StripOptions {
  std::string content;
  size_t start = 0, stop = 0;
};

Result<StripOptions> parse_strip(const Json& json, const std::string& where) {
  LORRY_ASSIGN(std::string content, string_field(json, "content", where));
  if (content.empty()) return invalid_input(where + ": empty content");
  return StripOptions{std::move(content), count_field(json, "start"), count_field(json, "stop")};
}

struct MetaspaceOptions {
  std::string replacement;
  bool prepended = true;
};

Result<MetaspaceOptions> parse_metaspace(const Json& json, const std::string& where) {
  LORRY_ASSIGN(std::string replacement, string_field(json, "replacement", where));
  if (replacement.empty()) return invalid_input(where + ": empty replacement");
  const auto scheme = json.find("prepend_scheme");
  const bool never = (scheme != json.end() && *scheme == "never") ||
                     !bool_field_or(json, "add_prefix_space", true);
  return MetaspaceOptions{std::move(replacement), !never};
}

Result<Change> parse_replace(const Json& json, const std::string& where) {
  LORRY_ASSIGN(Regex compiled, parse_pattern(json, where));
  LORRY_ASSIGN(const std::string content, string_field(json, "content", where));
  const auto pattern = std::make_shared<const Regex>(std::move(compiled));
  return Change([=](const std::string& t) { return replace_matches(*pattern, t, content); });
}

struct CtcOptions {
  std::string pad, delimiter;
  bool cleanup = false;
};

Result<CtcOptions> parse_ctc(const Json& json, const std::string& where) {
  CtcOptions out;
  LORRY_ASSIGN(out.pad, string_field(json, "pad_token", where));
  LORRY_ASSIGN(out.delimiter, string_field(json, "word_delimiter_token", where));
  LORRY_ASSIGN(out.cleanup, bool_field(json, "cleanup", where));
  return out;
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
  if (type == "Sequence") {
    const auto list = json.find("decoders");
    if (list == json.end() || !list->is_array())
      return invalid_input(where + ": no list 'decoders'");
    for (const Json& item : *list) LORRY_TRY(add(item));
    return {};
  }
  if (fused_) return add_text_step(type, json, where);
  if (type == "ByteLevel") {
    steps_.push_back(make_byte_level_decoder());
    fused_ = byte_chars_ = true;
  } else if (type == "Fuse") {
    steps_.push_back(make_fuse());
    fused_ = true;
  } else if (type == "ByteFallback") {
    steps_.push_back(make_byte_fallback());
    byte_tokens_ = true;
  } else if (type == "Replace") {
    LORRY_ASSIGN(Change change, parse_replace(json, where));
    steps_.push_back(make_each_token(std::move(change)));
  } else if (type == "Strip") {
    LORRY_ASSIGN(const StripOptions o, parse_strip(json, where));
    steps_.push_back(make_strip_decoder(o.content, o.start, o.stop));
  } else if (type == "Metaspace") {
    LORRY_ASSIGN(const MetaspaceOptions o, parse_metaspace(json, where));
    steps_.push_back(make_metaspace_decoder(o.replacement, o.prepended));
  } else if (type == "BPEDecoder") {
    LORRY_ASSIGN(std::string suffix, string_field(json, "suffix", where));
    steps_.push_back(make_bpe_decoder(std::move(suffix)));
  } else if (type == "WordPiece") {
    LORRY_ASSIGN(std::string prefix, string_field(json, "prefix", where));
    LORRY_ASSIGN(const bool cleanup, bool_field(json, "cleanup", where));
    steps_.push_back(make_word_piece_decoder(std::move(prefix), cleanup));
  } else if (type == "CTC") {
    LORRY_ASSIGN(const CtcOptions o, parse_ctc(json, where));
    steps_.push_back(make_ctc_decoder(o.pad, o.delimiter, o.cleanup));
  } else {
    return unsupported("tokenizer.json: decoder '" + type + "' is not supported");
  }
  return {};
}

/// Behind a step that joins, where the text is the first token and the last.
Result<> Decoder::add_text_step(const std::string& type, const Json& json,
                                const std::string& where) {
  const auto add_clean_up = [&] {
    for (DecoderStep& step : make_text_clean_up()) steps_.push_back(std::move(step));
  };
  if (type == "Fuse") return {};
  if (type == "ByteLevel") {
    steps_.push_back(make_whole_text(
        [](const std::string& text) { return replace_invalid_utf8(token_bytes(text)); }));
  } else if (type == "ByteFallback") {
    steps_.push_back(make_text_byte_fallback());
  } else if (type == "Replace") {
    LORRY_ASSIGN(Change change, parse_replace(json, where));
    const std::string literal = literal_of(json);
    steps_.push_back(literal.empty() ? make_whole_text(std::move(change))
                                     : make_text_replace(literal, json["content"]));
  } else if (type == "Strip") {
    LORRY_ASSIGN(const StripOptions o, parse_strip(json, where));
    steps_.push_back(make_text_strip(o.content, o.start, o.stop));
  } else if (type == "Metaspace") {
    LORRY_ASSIGN(const MetaspaceOptions o, parse_metaspace(json, where));
    steps_.push_back(make_text_replace(o.replacement, o.prepended ? "" : " "));
  } else if (type == "BPEDecoder") {
    LORRY_ASSIGN(std::string suffix, string_field(json, "suffix", where));
    if (!suffix.empty()) steps_.push_back(make_text_replace(std::move(suffix), ""));
  } else if (type == "WordPiece") {
    LORRY_TRY(string_field(json, "prefix", where));
    LORRY_ASSIGN(const bool cleanup, bool_field(json, "cleanup", where));
    if (cleanup) add_clean_up();
  } else if (type == "CTC") {
    LORRY_ASSIGN(const CtcOptions o, parse_ctc(json, where));
    if (!o.pad.empty()) steps_.push_back(make_text_replace(o.pad, ""));
    if (o.cleanup) {
      add_clean_up();
      steps_.push_back(make_text_replace(o.delimiter, " "));
    }
  } else {
    return unsupported("tokenizer.json: decoder '" + type + "' is not supported");
  }
  return {};
}

std::string Decoder::decode(std::vector<std::string> tokens) const {
  DecoderRun run(*this);
  std::string text;
  for (std::string& token : tokens) run.push(std::move(token), text);
  run.finish(text);
  return text;
}

std::string Decoder::bytes_of(std::string token, bool at_start) const {
  if (byte_tokens_) {
    if (const auto byte = byte_of_token(token)) return std::string(1, *byte);
  }
  if (byte_chars_) {
    if (auto bytes = chars_to_bytes(token); bytes && !is_valid_utf8(*bytes)) return *bytes;
  }
  if (at_start) return decode({std::move(token)});
  // What the token adds after one that every decoder writes as it is.
  static constexpr std::string_view kBefore = "a";
  std::string text = decode({std::string(kBefore), std::move(token)});
  return text.starts_with(kBefore) ? text.substr(kBefore.size()) : text;
}

DecoderRun::DecoderRun(const Decoder& decoder) : decoder_(decoder) {
  for (const DecoderStep& step : decoder.steps_) streams_.push_back(step());
}

void DecoderRun::push(std::string token, std::string& text) {
  tokens_.clear();
  tokens_.push_back(std::move(token));
  pass(0, text);
}

void DecoderRun::finish(std::string& text) {
  for (size_t step = 0; step < streams_.size(); ++step) {
    tokens_.clear();
    streams_[step]->finish(tokens_);
    pass(step + 1, text);
  }
}

/// `tokens_` through the steps from this one on, to the end of `text`.
void DecoderRun::pass(size_t step, std::string& text) {
  for (; step < streams_.size(); ++step) {
    next_.clear();
    for (std::string& token : tokens_) streams_[step]->push(std::move(token), next_);
    tokens_.swap(next_);
  }
  for (const std::string& token : tokens_) {
    if (decoder_.join_with_spaces_ && !first_) text += ' ';
    first_ = false;
    text += token;
  }
}

std::string take_certain_text(std::string& bytes) {
  size_t whole = 0;
  while (whole < bytes.size()) {
    const Utf8Step step = step_utf8(std::string_view(bytes).substr(whole));
    if (step.incomplete) break;
    whole += step.size + step.bad;
  }
  std::string out = replace_invalid_utf8(std::string_view(bytes).substr(0, whole));
  bytes.erase(0, whole);
  return out;
}

}  // namespace lorry::tokenizer
