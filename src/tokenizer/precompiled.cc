// SentencePiece's `precompiled_charsmap`: the normalizer Precompiled.
//
// The bytes are a length, a double array (Darts-clone: Aoe 1989) of the strings to replace, and the
// replacements as strings that end in NUL. As the peer reads it, a cluster of at most five bytes is
// replaced as a whole by what stands for its *shortest* prefix in the array; otherwise each
// character is looked up by itself.
#include <utf8proc.h>

#include <array>
#include <cstring>
#include <optional>

#include "tokenizer/normalizer.h"
#include "tokenizer/unicode.h"

namespace lorry::tokenizer {
namespace {

std::optional<std::string> from_base64(std::string_view text) {
  std::string out;
  uint32_t bits = 0;
  int n = 0;
  while (text.ends_with('=')) text.remove_suffix(1);
  for (const char c : text) {
    const int value = c >= 'A' && c <= 'Z'   ? c - 'A'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 26
                      : c >= '0' && c <= '9' ? c - '0' + 52
                      : c == '+'             ? 62
                      : c == '/'             ? 63
                                             : -1;
    if (value < 0) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(value);
    n += 6;
    if (n < 8) continue;
    n -= 8;
    out += static_cast<char>(bits >> n & 0xFF);
  }
  return out;
}

class Precompiled : public NormalizerStep {
 public:
  Precompiled(std::vector<uint32_t> units, std::string replacements)
      : units_(std::move(units)), replacements_(std::move(replacements)) {
    for (int c = 0; c < 128; ++c) {
      const char one = static_cast<char>(c);
      ascii_stays_[c] = !find({&one, 1}).has_value();
    }
  }

  AlignedText apply(AlignedText in, bool keep_spans) const override {
    const std::string_view text = in.text();
    AlignedText out(keep_spans);
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = cluster_end(text, begin);
      constexpr size_t kMaxCluster = 5;  // bytes of one that is looked up whole
      if (end - begin > kMaxCluster || !replace(in, begin, end, out)) {
        for (size_t i = begin; i < end;) {
          const size_t next = i + utf8_size(text[i]);
          if (!replace(in, i, next, out)) keep(in, i, next, out);
          i = next;
        }
      }
      begin = end;
    }
    return out;
  }

 private:
  bool replace(const AlignedText& in, size_t begin, size_t end, AlignedText& out) const {
    const std::string_view text = in.text().substr(begin, end - begin);
    if (text.size() == 1 && static_cast<uint8_t>(text[0]) < 128 &&
        ascii_stays_[static_cast<size_t>(text[0])]) {
      return false;
    }
    const auto replacement = find(text);
    if (replacement) out.append(*replacement, span(in, begin, end, out));
    return replacement.has_value();
  }

  static void keep(const AlignedText& in, size_t begin, size_t end, AlignedText& out) {
    if (begin > 0 && out.text().empty()) {
      out.append(in.text().substr(begin, end - begin), span(in, begin, end, out));
    } else {
      out.append_part(in, begin, end);
    }
  }

  /// The input behind [begin, end). As with the peer, what was removed from the very start belongs
  /// to what comes first in its place, so that this still counts as the start of the text.
  static Span span(const AlignedText& in, size_t begin, size_t end, const AlignedText& out) {
    Span from = in.span(begin, end);
    if (out.text().empty()) from.first = in.span(0, 1).first;
    return from;
  }

  /// What stands for the shortest prefix of `key` that the array holds.
  std::optional<std::string_view> find(std::string_view key) const {
    const auto offset = [](uint32_t unit) { return (unit >> 10) << ((unit & 1 << 9) >> 6); };
    size_t at = offset(units_[0]);
    for (const char c : key) {
      const auto byte = static_cast<uint8_t>(c);
      if (byte == 0) return std::nullopt;
      at ^= byte;
      if (at >= units_.size()) return std::nullopt;
      const uint32_t unit = units_[at];
      if ((unit & (1u << 31 | 0xFF)) != byte) return std::nullopt;
      at ^= offset(unit);
      if (!(unit >> 8 & 1)) continue;  // no string ends here
      if (at >= units_.size()) return std::nullopt;
      const size_t begin = units_[at] & ~(1u << 31);
      if (begin >= replacements_.size()) return std::nullopt;
      return std::string_view(replacements_.data() + begin);  // up to the NUL
    }
    return std::nullopt;
  }

  /// End of the grapheme cluster that starts at `begin`.
  static size_t cluster_end(std::string_view text, size_t begin) {
    Decoded d = decode_utf8(&text[begin]);
    size_t end = begin + d.size;
    utf8proc_int32_t state = 0;
    while (end < text.size()) {
      if (d.code_point < 0x80 && d.code_point != '\r' && static_cast<uint8_t>(text[end]) < 0x80) {
        break;
      }
      const Decoded next = decode_utf8(&text[end]);
      if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(d.code_point),
                                           static_cast<utf8proc_int32_t>(next.code_point),
                                           &state)) {
        break;
      }
      end += next.size;
      d = next;
    }
    return end;
  }

  std::vector<uint32_t> units_;
  std::string replacements_;
  std::array<bool, 128> ascii_stays_{};
};

}  // namespace

Result<std::unique_ptr<NormalizerStep>> make_precompiled(std::string_view base64,
                                                         const std::string& where) {
  const std::optional<std::string> bytes = from_base64(base64);
  uint32_t size = 0;
  if (bytes && bytes->size() >= 4) std::memcpy(&size, bytes->data(), 4);
  if (size < 4 || size % 4 != 0 || bytes->size() - 4 < size) {
    return invalid_input(where + ": precompiled_charsmap is damaged");
  }
  std::vector<uint32_t> units(size / 4);
  std::memcpy(units.data(), bytes->data() + 4, size);
  std::string replacements = bytes->substr(4 + size);
  if (!is_valid_utf8(replacements)) {
    return invalid_input(where + ": precompiled_charsmap is damaged: its strings are not UTF-8");
  }
  return std::unique_ptr<NormalizerStep>(
      std::make_unique<Precompiled>(std::move(units), std::move(replacements)));
}

}  // namespace lorry::tokenizer
