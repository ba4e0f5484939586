// Normalizers that look at one character at a time: BERT's, StripAccents and SentencePiece's Nmt.
#include "tokenizer/normalizer.h"
#include "tokenizer/unicode.h"

namespace lorry::tokenizer {
namespace {

/// `change(c, span, out)` appends what becomes of each character.
template <typename Change>
AlignedText map_chars(const AlignedText& in, bool keep_spans, Change change) {
  AlignedText out(keep_spans);
  const std::string_view text = in.text();
  for (size_t i = 0; i < text.size();) {
    const Decoded d = decode_utf8(&text[i]);
    change(d.code_point, text.substr(i, d.size), in.span(i, i + d.size), out);
    i += d.size;
  }
  return out;
}

AlignedText without(const AlignedText& in, bool keep_spans, const CodePointTable& set) {
  return map_chars(in, keep_spans,
                   [&](uint32_t c, std::string_view bytes, Span span, AlignedText& out) {
                     if (!set.contains(c)) out.append(bytes, span);
                   });
}

class StripAccents : public NormalizerStep {
 public:
  AlignedText apply(AlignedText in, bool keep_spans) const override {
    static const CodePointTable accents(accents_set());
    return without(in, keep_spans, accents);
  }
};

class Nmt : public NormalizerStep {
 public:
  AlignedText apply(AlignedText in, bool keep_spans) const override {
    return map_chars(in, keep_spans,
                     [](uint32_t c, std::string_view bytes, Span span, AlignedText& out) {
                       if (is_control(c)) return;
                       out.append(is_space(c) ? " " : bytes, span);
                     });
  }

 private:
  static bool is_control(uint32_t c) {
    return (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F ||
           c == 0x9F;
  }
  static bool is_space(uint32_t c) {
    return c == '\t' || c == '\n' || c == '\f' || c == '\r' || c == 0x1680 ||
           (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
           c == 0xFEFF || c == 0xFFFD;
  }
};

class BertCleanText : public NormalizerStep {
 public:
  AlignedText apply(AlignedText in, bool keep_spans) const override {
    static const CodePointTable control(bert_control_set()), space(whitespace_set());
    return map_chars(in, keep_spans,
                     [&](uint32_t c, std::string_view bytes, Span span, AlignedText& out) {
                       if (control.contains(c)) return;
                       out.append(space.contains(c) ? " " : bytes, span);
                     });
  }
};

class BertChineseChars : public NormalizerStep {
 public:
  AlignedText apply(AlignedText in, bool keep_spans) const override {
    return map_chars(in, keep_spans,
                     [](uint32_t c, std::string_view bytes, Span span, AlignedText& out) {
                       const bool alone = is_chinese(c);
                       if (alone) out.append(" ", span);
                       out.append(bytes, span);
                       if (alone) out.append(" ", span);
                     });
  }

 private:
  static bool is_chinese(uint32_t c) {
    return (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x4E00 && c <= 0x9FFF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0x2F800 && c <= 0x2FA1F);
  }
};

/// NFD without its nonspacing marks.
class BertStripAccents : public NormalizerStep {
 public:
  AlignedText apply(AlignedText in, bool keep_spans) const override {
    static const CodePointTable marks(bert_marks_set());
    return without(decompose_->apply(std::move(in), keep_spans), keep_spans, marks);
  }

 private:
  std::unique_ptr<NormalizerStep> decompose_ = make_normal_form(NormalForm::kNfd);
};

}  // namespace

std::unique_ptr<NormalizerStep> make_strip_accents() { return std::make_unique<StripAccents>(); }
std::unique_ptr<NormalizerStep> make_nmt() { return std::make_unique<Nmt>(); }
std::unique_ptr<NormalizerStep> make_bert_clean_text() { return std::make_unique<BertCleanText>(); }
std::unique_ptr<NormalizerStep> make_bert_chinese_chars() {
  return std::make_unique<BertChineseChars>();
}
std::unique_ptr<NormalizerStep> make_bert_strip_accents() {
  return std::make_unique<BertStripAccents>();
}

}  // namespace lorry::tokenizer
