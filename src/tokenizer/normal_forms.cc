// NFC, NFD, NFKC and NFKD, segment by segment so that offsets stay close.
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <optional>

#include "tokenizer/normalizer.h"
#include "tokenizer/unicode.h"

namespace lorry::tokenizer {
namespace {

int options_of(NormalForm form) {
  constexpr int kBase = UTF8PROC_STABLE;
  switch (form) {
    case NormalForm::kNfc:
      return kBase | UTF8PROC_COMPOSE;
    case NormalForm::kNfd:
      return kBase | UTF8PROC_DECOMPOSE;
    case NormalForm::kNfkc:
      return kBase | UTF8PROC_COMPOSE | UTF8PROC_COMPAT;
    case NormalForm::kNfkd:
      return kBase | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT;
  }
  return kBase;
}

std::vector<utf8proc_int32_t> decompose(uint32_t c, int options) {
  std::vector<utf8proc_int32_t> out(32);
  int boundary = 0;
  const auto n = utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(c), out.data(), static_cast<utf8proc_ssize_t>(out.size()),
      static_cast<utf8proc_option_t>(options | UTF8PROC_DECOMPOSE), &boundary);
  out.resize(n < 0 ? 0 : static_cast<size_t>(n));
  return out;
}

int combining_class(uint32_t c) {
  return utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class;
}

/// Whether the character can join with one before it (NFC_Quick_Check=Maybe).
bool composes_backwards(uint32_t c) {
  if ((c >= 0x1161 && c <= 0x1175) || (c >= 0x11A8 && c <= 0x11C2)) return true;  // Hangul jamo
  const auto index = utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->comb_index;
  return index != UINT16_MAX && index >= 0x8000;
}

/// Nothing happens to such a character, nor across the boundary before it.
bool is_stable(uint32_t c, NormalForm form) {
  if (is_inert_in_normal_forms(c)) return true;
  if (combining_class(c) != 0 || composes_backwards(c)) return false;
  const int options = options_of(form);
  std::vector<utf8proc_int32_t> parts = decompose(c, options);
  if (options & UTF8PROC_COMPOSE) {
    const auto n =
        utf8proc_normalize_utf32(parts.data(), static_cast<utf8proc_ssize_t>(parts.size()),
                                 static_cast<utf8proc_option_t>(options));
    parts.resize(n < 0 ? 0 : static_cast<size_t>(n));
  }
  return parts.size() == 1 && parts[0] == static_cast<utf8proc_int32_t>(c);
}

/// Whether a segment may begin at `c`: its decomposition starts with what joins nothing before it.
bool begins_segment(uint32_t c, NormalForm form) {
  if (is_inert_in_normal_forms(c)) return true;
  const auto parts = decompose(c, options_of(form));
  const uint32_t first = parts.empty() ? c : static_cast<uint32_t>(parts[0]);
  return combining_class(first) == 0 && !composes_backwards(first) && !composes_backwards(c);
}

CodePointTable make_stable_table(NormalForm form) {
  CodePointSet::Ranges unstable;
  for (uint32_t c = 0x80; c < 0x30000; ++c) {
    if (c >= 0x3400 && c < 0xA000) c = 0xA000;     // ideographs
    if (c >= 0xE000 && c < 0xF900) c = 0xF900;     // private use
    if (c >= 0x17000 && c < 0x1A000) c = 0x1A000;  // Tangut
    if (c >= 0x20000 && c < 0x2F800) c = 0x2F800;
    if (!is_stable(c, form)) unstable.emplace_back(c, c);
  }
  return CodePointTable(CodePointSet(std::move(unstable)).inverted());
}

template <NormalForm kForm>
const CodePointTable& stable_table() {
  static const CodePointTable table = make_stable_table(kForm);
  return table;
}

const CodePointTable& stable_table(NormalForm form) {
  switch (form) {
    case NormalForm::kNfc:
      return stable_table<NormalForm::kNfc>();
    case NormalForm::kNfd:
      return stable_table<NormalForm::kNfd>();
    case NormalForm::kNfkc:
      return stable_table<NormalForm::kNfkc>();
    case NormalForm::kNfkd:
      break;
  }
  return stable_table<NormalForm::kNfkd>();
}

class NormalFormStep : public NormalizerStep {
 public:
  explicit NormalFormStep(NormalForm form) : form_(form), stable_(stable_table(form)) {}

  AlignedText apply(AlignedText in, bool keep_spans) const override {
    const std::string_view text = in.text();
    size_t changed = first_unstable(text, 0);
    if (changed == text.size()) return in;
    AlignedText out(keep_spans);
    size_t done = 0;
    while (changed < text.size()) {
      const size_t begin = segment_begin(text, done, changed);
      const size_t end = segment_end(text, changed);
      out.append_part(in, done, begin);
      append_normal(in, begin, end, out);
      done = end;
      changed = first_unstable(text, end);
    }
    out.append_part(in, done, text.size());
    return out;
  }

 private:
  size_t first_unstable(std::string_view text, size_t from) const {
    for (size_t i = from; (i = skip_ascii(text, i)) < text.size();) {
      do {
        const Decoded d = decode_utf8(&text[i]);
        if (!stable_.contains(d.code_point)) return i;
        i += d.size;
      } while (i < text.size() && static_cast<uint8_t>(text[i]) >= 0x80);
    }
    return text.size();
  }

  /// An unstable character may join the stable one before it, which is not inert.
  size_t segment_begin(std::string_view text, size_t done, size_t changed) const {
    if (changed == done || begins_segment(decode_utf8(&text[changed]).code_point, form_)) {
      return changed;
    }
    size_t begin = changed - 1;
    while (is_utf8_continuation(text[begin])) --begin;
    return is_inert_in_normal_forms(decode_utf8(&text[begin]).code_point) ? changed : begin;
  }

  size_t segment_end(std::string_view text, size_t changed) const {
    size_t end = changed + utf8_size(text[changed]);
    while (end < text.size()) {
      const Decoded d = decode_utf8(&text[end]);
      if (stable_.contains(d.code_point) || begins_segment(d.code_point, form_)) break;
      end += d.size;
    }
    return end;
  }

  /// A character of a decomposition and the input behind it.
  struct Point {
    utf8proc_int32_t c;
    Span span;
  };

  void append_normal(const AlignedText& in, size_t begin, size_t end, AlignedText& out) const {
    std::vector<Point> points;
    const std::string_view text = in.text();
    const int options = options_of(form_);
    for (size_t i = begin; i < end;) {
      const Decoded d = decode_utf8(&text[i]);
      const Span span = in.span(i, i + d.size);
      for (const auto c : decompose(d.code_point, options)) points.push_back({c, span});
      i += d.size;
    }
    order_marks(points);
    std::vector<utf8proc_int32_t> normal;
    for (const Point& p : points) normal.push_back(p.c);
    const auto n =
        utf8proc_normalize_utf32(normal.data(), static_cast<utf8proc_ssize_t>(normal.size()),
                                 static_cast<utf8proc_option_t>(options));
    normal.resize(n < 0 ? 0 : static_cast<size_t>(n));
    std::string bytes;
    const bool one_to_one = normal.size() == points.size();
    size_t unused = 0;
    for (size_t i = 0; i < normal.size(); ++i) {
      bytes.clear();
      append_utf8(bytes, static_cast<uint32_t>(normal[i]));
      out.append(bytes, one_to_one ? points[i].span : span_of(normal[i], points, unused));
    }
  }

  /// The input behind a character that may be composed: of the points that made it, which are
  /// marked as used. All before `unused` are.
  static Span span_of(utf8proc_int32_t composed, std::vector<Point>& points, size_t& unused) {
    constexpr size_t kWindow = 32;  // points looked at: longer runs of marks get near places
    constexpr utf8proc_int32_t kUsed = -1;
    const auto first = points.begin() + static_cast<ptrdiff_t>(unused);
    const auto last = first + std::min<ptrdiff_t>(points.end() - first, kWindow);
    std::optional<Span> span;
    for (const auto part : decompose(static_cast<uint32_t>(composed), UTF8PROC_STABLE)) {
      const auto found = std::find_if(first, last, [&](const Point& p) { return p.c == part; });
      if (found == last) continue;
      span = span ? Span{std::min(span->first, found->span.first),
                         std::max(span->second, found->span.second)}
                  : found->span;
      found->c = kUsed;
    }
    if (!span) span = first == points.end() ? Span{} : first->span;
    while (unused < points.size() && points[unused].c == kUsed) ++unused;
    return *span;
  }

  /// Canonical order: marks by combining class, stably, between starters.
  static void order_marks(std::vector<Point>& points) {
    const auto class_of = [](const Point& p) {
      return combining_class(static_cast<uint32_t>(p.c));
    };
    const auto by_class = [&](const Point& a, const Point& b) { return class_of(a) < class_of(b); };
    for (size_t i = 0; i < points.size();) {
      size_t end = i;
      while (end < points.size() && class_of(points[end]) != 0) ++end;
      std::stable_sort(points.begin() + static_cast<ptrdiff_t>(i),
                       points.begin() + static_cast<ptrdiff_t>(end), by_class);
      i = end + 1;
    }
  }

  NormalForm form_;
  const CodePointTable& stable_;
};

}  // namespace

std::unique_ptr<NormalizerStep> make_normal_form(NormalForm form) {
  return std::make_unique<NormalFormStep>(form);
}

}  // namespace lorry::tokenizer
