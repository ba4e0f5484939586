// UTF-8, sets of code points and character properties.
//
// Properties are those of the libraries behind the peer `tokenizers`, each with its own Unicode
// version (see make_unicode_data.py): ids must not depend on who knows the newer one.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/utf8.h"

namespace lorry::tokenizer {

constexpr uint32_t kMaxCodePoint = 0x10FFFF;

struct Decoded {
  uint32_t code_point;
  uint32_t size;  ///< bytes
};

/// The character at `p`, which must start valid UTF-8.
inline Decoded decode_utf8(const char* p) {
  const auto* u = reinterpret_cast<const uint8_t*>(p);
  if (u[0] < 0x80) return {u[0], 1};
  if (u[0] < 0xE0) return {(u[0] & 0x1Fu) << 6 | (u[1] & 0x3Fu), 2};
  if (u[0] < 0xF0) return {(u[0] & 0x0Fu) << 12 | (u[1] & 0x3Fu) << 6 | (u[2] & 0x3Fu), 3};
  return {(u[0] & 0x07u) << 18 | (u[1] & 0x3Fu) << 12 | (u[2] & 0x3Fu) << 6 | (u[3] & 0x3Fu), 4};
}

/// Bytes of the character that `lead` starts, in valid UTF-8.
inline uint32_t utf8_size(char lead) {
  const auto u = static_cast<uint8_t>(lead);
  return u < 0x80 ? 1 : u < 0xE0 ? 2 : u < 0xF0 ? 3 : 4;
}

/// The first byte at or behind `from` that is not ASCII; the size if there is none.
inline size_t skip_ascii(std::string_view text, size_t from) {
  for (; text.size() - from >= 8; from += 8) {
    uint64_t bytes;
    std::memcpy(&bytes, text.data() + from, 8);
    if (bytes & 0x8080808080808080ull) break;
  }
  while (from < text.size() && static_cast<uint8_t>(text[from]) < 0x80) ++from;
  return from;
}

bool is_valid_utf8(std::string_view bytes);

/// Length of the valid character at the start of `bytes`, 0 if there is none. `bad` is then the
/// number of bytes that one U+FFFD stands for; `incomplete` says whether more bytes could mend it.
struct Utf8Step {
  uint32_t size = 0;
  uint32_t bad = 0;
  bool incomplete = false;
};
Utf8Step step_utf8(std::string_view bytes);

/// Every maximal broken part becomes U+FFFD, as Python's errors="replace" does it.
std::string replace_invalid_utf8(std::string_view bytes);

/// A set of code points as sorted, disjoint, inclusive ranges.
class CodePointSet {
 public:
  using Ranges = std::vector<std::pair<uint32_t, uint32_t>>;

  CodePointSet() = default;
  explicit CodePointSet(Ranges ranges);
  static CodePointSet of(uint32_t code_point) { return CodePointSet({{code_point, code_point}}); }

  void add(uint32_t first, uint32_t last);
  void add(const CodePointSet& other);
  CodePointSet inverted() const;
  CodePointSet intersected(const CodePointSet& other) const;
  /// With every simple case variant of its members.
  CodePointSet case_closed() const;
  bool contains(uint32_t code_point) const;
  const Ranges& ranges() const { return ranges_; }

 private:
  void normalize();
  Ranges ranges_;
};

/// A CodePointSet made for asking: two loads a question.
class CodePointTable {
 public:
  CodePointTable() : CodePointTable(CodePointSet{}) {}
  explicit CodePointTable(const CodePointSet& set);

  bool ascii(uint8_t byte) const { return ascii_[byte]; }
  bool contains(uint32_t code_point) const {
    const auto& block = blocks_[index_[code_point >> 8]];
    return block[(code_point >> 6) & 3] >> (code_point & 63) & 1;
  }

 private:
  std::array<bool, 128> ascii_{};
  std::vector<uint16_t> index_;
  std::vector<std::array<uint64_t, 4>> blocks_;
};

/// The set that \p{NAME} means (general category, script, POSIX name); nullopt if not known.
std::optional<CodePointSet> property_set(std::string_view name);

const CodePointSet& whitespace_set();
const CodePointSet& word_set();         ///< \w of split patterns
const CodePointSet& numeric_set();      ///< what Digits isolates
const CodePointSet& punctuation_set();  ///< what Punctuation isolates
const CodePointSet& rust_word_set();    ///< \w of Whitespace and of added tokens
bool is_whitespace(uint32_t code_point);
const CodePointSet& bert_control_set();  ///< what BertNormalizer's clean_text removes
const CodePointSet& bert_marks_set();    ///< what its strip_accents removes, behind NFD
const CodePointSet& accents_set();       ///< what StripAccents removes

constexpr uint8_t kAnyScript = 0;
/// A number for the script of UnicodeScripts, kAnyScript where it does not matter.
uint8_t script_class(uint32_t code_point);

/// Simple lowercase; U+0130 is the one character with a longer one and is the caller's business.
uint32_t to_lower(uint32_t code_point);

/// Whether normal forms leave the character alone whatever newer tables say.
bool is_inert_in_normal_forms(uint32_t code_point);

}  // namespace lorry::tokenizer
