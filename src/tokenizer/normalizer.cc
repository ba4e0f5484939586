#include "tokenizer/normalizer.h"

#include <nlohmann/json.hpp>

#include "tokenizer/byte_chars.h"
#include "tokenizer/pattern.h"
#include "tokenizer/unicode.h"

namespace lorry::tokenizer {
namespace {

class Lowercase : public NormalizerStep {
 public:
  AlignedText apply(AlignedText in, bool keep_spans) const override {
    AlignedText out(keep_spans);
    const std::string_view text = in.text();
    std::string low;
    for (size_t i = 0; i < text.size();) {
      const Decoded d = decode_utf8(&text[i]);
      low.clear();
      if (d.code_point == 0x130) {
        low = "i\xCC\x87";  // the one lowercase of two characters
      } else {
        append_utf8(low, to_lower(d.code_point));
      }
      out.append(low, in.span(i, i + d.size));
      i += d.size;
    }
    return out;
  }
};

class Strip : public NormalizerStep {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}

  AlignedText apply(AlignedText in, bool keep_spans) const override {
    const std::string_view text = in.text();
    size_t begin = 0, end = text.size();
    while (left_ && begin < end) {
      const Decoded d = decode_utf8(&text[begin]);
      if (!is_whitespace(d.code_point)) break;
      begin += d.size;
    }
    while (right_ && end > begin) {
      size_t last = end - 1;
      while (is_utf8_continuation(text[last])) --last;
      if (!is_whitespace(decode_utf8(&text[last]).code_point)) break;
      end = last;
    }
    if (begin == 0 && end == text.size()) return in;
    AlignedText out(keep_spans);
    out.append_part(in, begin, end);
    return out;
  }

 private:
  bool left_, right_;
};

class Replace : public NormalizerStep {
 public:
  Replace(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  AlignedText apply(AlignedText in, bool keep_spans) const override {
    const std::string_view text = in.text();
    if (text.empty()) return in;
    Regex::Iterator matches(pattern_, text);
    Regex::Match m;
    if (!matches.next(m)) return in;
    AlignedText out(keep_spans);
    size_t done = 0;
    do {
      out.append_part(in, done, m.begin);
      out.append(content_, in.span(m.begin, m.end));
      done = m.end;
    } while (matches.next(m));
    out.append_part(in, done, text.size());
    return out;
  }

 private:
  Regex pattern_;
  std::string content_;
};

class Prepend : public NormalizerStep {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}

  AlignedText apply(AlignedText in, bool keep_spans) const override {
    if (in.text().empty()) return in;
    AlignedText out(keep_spans);
    const Span first = in.span(0, 1);
    out.append(prefix_, {first.first, first.first});
    out.append_part(in, 0, in.text().size());
    return out;
  }

 private:
  std::string prefix_;
};

class ByteLevelNormalizer : public NormalizerStep {
 public:
  AlignedText apply(AlignedText in, bool keep_spans) const override {
    AlignedText out(keep_spans);
    const std::string_view text = in.text();
    for (size_t i = 0; i < text.size(); ++i) {
      out.append(bytes_to_chars(text.substr(i, 1)), in.span(i, i + 1));
    }
    return out;
  }
};

}  // namespace

Result<Normalizer> Normalizer::parse(const Json& json) {
  Normalizer out;
  if (!json.is_null()) LORRY_TRY(out.add(json));
  return out;
}

Result<> Normalizer::add(const Json& json) {
  const std::string type = type_of(json);
  const std::string where = "tokenizer.json: normalizer " + type;
  if (type == "Sequence") {
    const auto list = json.find("normalizers");
    if (list == json.end() || !list->is_array()) {
      return invalid_input(where + ": no list 'normalizers'");
    }
    for (const Json& item : *list) LORRY_TRY(add(item));
    return {};
  }
  if (type == "NFC") {
    steps_.push_back(make_normal_form(NormalForm::kNfc));
  } else if (type == "NFD") {
    steps_.push_back(make_normal_form(NormalForm::kNfd));
  } else if (type == "NFKC") {
    steps_.push_back(make_normal_form(NormalForm::kNfkc));
  } else if (type == "NFKD") {
    steps_.push_back(make_normal_form(NormalForm::kNfkd));
  } else if (type == "Lowercase") {
    steps_.push_back(std::make_unique<Lowercase>());
  } else if (type == "Strip") {
    LORRY_ASSIGN(const bool left, bool_field(json, "strip_left", where));
    LORRY_ASSIGN(const bool right, bool_field(json, "strip_right", where));
    steps_.push_back(std::make_unique<Strip>(left, right));
  } else if (type == "Replace") {
    LORRY_ASSIGN(Regex pattern, parse_pattern(json, where));
    LORRY_ASSIGN(std::string content, string_field(json, "content", where));
    steps_.push_back(std::make_unique<Replace>(std::move(pattern), std::move(content)));
  } else if (type == "Prepend") {
    LORRY_ASSIGN(std::string prefix, string_field(json, "prepend", where));
    steps_.push_back(std::make_unique<Prepend>(std::move(prefix)));
  } else if (type == "ByteLevel") {
    steps_.push_back(std::make_unique<ByteLevelNormalizer>());
  } else if (type == "StripAccents") {
    steps_.push_back(make_strip_accents());
  } else if (type == "Nmt") {
    steps_.push_back(make_nmt());
  } else if (type == "Precompiled") {
    LORRY_ASSIGN(const std::string map, string_field(json, "precompiled_charsmap", where));
    LORRY_ASSIGN(auto step, make_precompiled(map, where));
    steps_.push_back(std::move(step));
  } else if (type == "BertNormalizer") {
    return add_bert(json, where);
  } else {
    return unsupported("tokenizer.json: normalizer '" + type + "' is not supported");
  }
  return {};
}

Result<> Normalizer::add_bert(const Json& json, const std::string& where) {
  LORRY_ASSIGN(const bool clean, bool_field(json, "clean_text", where));
  LORRY_ASSIGN(const bool chinese, bool_field(json, "handle_chinese_chars", where));
  LORRY_ASSIGN(const bool lowercase, bool_field(json, "lowercase", where));
  if (clean) steps_.push_back(make_bert_clean_text());
  if (chinese) steps_.push_back(make_bert_chinese_chars());
  if (bool_field_or(json, "strip_accents", lowercase)) {
    steps_.push_back(make_bert_strip_accents());
  }
  if (lowercase) steps_.push_back(std::make_unique<Lowercase>());
  return {};
}

AlignedText Normalizer::apply(AlignedText text, bool keep_spans) const {
  for (const auto& step : steps_) text = step->apply(std::move(text), keep_spans);
  return text;
}

std::string Normalizer::apply(std::string_view text) const {
  return std::string(apply(AlignedText(text, 0), false).text());
}

}  // namespace lorry::tokenizer
