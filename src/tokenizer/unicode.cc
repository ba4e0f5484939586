#include "tokenizer/unicode.h"

#include <simdjson.h>
#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <span>

namespace lorry::tokenizer {
namespace {

struct Range {
  uint32_t first, last;
};

struct NamedRanges {
  std::string_view name;
  std::span<const Range> ranges;
};

#include "tokenizer/unicode_data.inc"  // kCategoryRuns, kScripts, kWord, kAlphabetic, ...

constexpr std::string_view kCategoryNames[] = {
    "lu", "ll", "lt", "lm", "lo", "mn", "mc", "me", "nd", "nl", "no", "pc", "pd", "ps", "pe",
    "pi", "pf", "po", "sm", "sc", "sk", "so", "zs", "zl", "zp", "cc", "cf", "co", "cn", "cs"};

CodePointSet to_set(std::span<const Range> ranges) {
  CodePointSet::Ranges out;
  for (const Range& r : ranges) out.emplace_back(r.first, r.last);
  return CodePointSet(std::move(out));
}

/// Every category whose name starts with `prefix` ("l" or "lu").
CodePointSet categories(std::string_view prefix) {
  CodePointSet::Ranges out;
  const size_t n = std::size(kCategoryRuns);
  for (size_t i = 0; i < n; ++i) {
    if (!kCategoryNames[kCategoryRuns[i] & 31].starts_with(prefix)) continue;
    const uint32_t end = i + 1 < n ? kCategoryRuns[i + 1] >> 5 : kMaxCodePoint + 1;
    out.emplace_back(kCategoryRuns[i] >> 5, end - 1);
  }
  return CodePointSet(std::move(out));
}

CodePointSet merged(std::initializer_list<std::string_view> prefixes) {
  CodePointSet out;
  for (std::string_view p : prefixes) out.add(categories(p));
  return out;
}

/// Names compare without case, spaces, hyphens and underscores.
std::string fold_name(std::string_view name) {
  std::string out;
  for (char c : name) {
    if (c == ' ' || c == '_' || c == '-') continue;
    out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  }
  return out;
}

std::optional<CodePointSet> posix_set(std::string_view name) {
  const auto ascii = [](uint32_t a, uint32_t b) { return CodePointSet({{a, b}}); };
  if (name == "alpha" || name == "alphabetic") return to_set(kAlphabetic);
  if (name == "digit") return categories("nd");
  if (name == "alnum") {
    CodePointSet set = to_set(kAlphabetic);
    set.add(categories("nd"));
    return set;
  }
  if (name == "upper" || name == "lower")
    return std::nullopt;  // Other_Uppercase: not in the tables
  if (name == "space" || name == "whitespace") return whitespace_set();
  if (name == "word") return word_set();
  if (name == "cntrl") return categories("cc");
  if (name == "ascii") return ascii(0, 0x7F);
  if (name == "any") return ascii(0, kMaxCodePoint);
  if (name == "assigned") return categories("cn").inverted();
  if (name == "xdigit" || name == "asciihexdigit") {
    CodePointSet set = ascii('0', '9');
    set.add('A', 'F');
    set.add('a', 'f');
    return set;
  }
  if (name == "blank") {
    CodePointSet set = categories("zs");
    set.add('\t', '\t');
    return set;
  }
  return std::nullopt;
}

std::string_view long_category_name(std::string_view name) {
  static const std::map<std::string_view, std::string_view> kNames = {
      {"letter", "l"},
      {"uppercaseletter", "lu"},
      {"lowercaseletter", "ll"},
      {"titlecaseletter", "lt"},
      {"modifierletter", "lm"},
      {"otherletter", "lo"},
      {"mark", "m"},
      {"nonspacingmark", "mn"},
      {"spacingmark", "mc"},
      {"enclosingmark", "me"},
      {"combiningmark", "m"},
      {"number", "n"},
      {"decimalnumber", "nd"},
      {"letternumber", "nl"},
      {"othernumber", "no"},
      {"punctuation", "p"},
      {"punct", "p"},
      {"connectorpunctuation", "pc"},
      {"dashpunctuation", "pd"},
      {"openpunctuation", "ps"},
      {"closepunctuation", "pe"},
      {"initialpunctuation", "pi"},
      {"finalpunctuation", "pf"},
      {"otherpunctuation", "po"},
      {"symbol", "s"},
      {"mathsymbol", "sm"},
      {"currencysymbol", "sc"},
      {"modifiersymbol", "sk"},
      {"othersymbol", "so"},
      {"separator", "z"},
      {"spaceseparator", "zs"},
      {"lineseparator", "zl"},
      {"paragraphseparator", "zp"},
      {"other", "c"},
      {"control", "cc"},
      {"format", "cf"},
      {"privateuse", "co"},
      {"unassigned", "cn"},
      {"surrogate", "cs"}};
  const auto it = kNames.find(name);
  return it == kNames.end() ? name : it->second;
}

}  // namespace

bool is_valid_utf8(std::string_view bytes) {
  return simdjson::validate_utf8(bytes.data(), bytes.size());
}

Utf8Step step_utf8(std::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) return {.size = 1};
  if (lead < 0xC2 || lead > 0xF4) return {.bad = 1};
  const uint32_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  for (uint32_t i = 1; i < size; ++i) {
    if (i == bytes.size()) return {.bad = i, .incomplete = true};
    uint8_t low = 0x80, high = 0xBF;  // narrower behind some leads: overlong, surrogate, too large
    if (i == 1 && lead == 0xE0) low = 0xA0;
    if (i == 1 && lead == 0xED) high = 0x9F;
    if (i == 1 && lead == 0xF0) low = 0x90;
    if (i == 1 && lead == 0xF4) high = 0x8F;
    if (at(i) < low || at(i) > high) return {.bad = i};
  }
  return {.size = size};
}

std::string replace_invalid_utf8(std::string_view bytes) {
  if (is_valid_utf8(bytes)) return std::string(bytes);
  std::string out;
  out.reserve(bytes.size() + 16);
  while (!bytes.empty()) {
    const Utf8Step step = step_utf8(bytes);
    if (step.size) {
      out += bytes.substr(0, step.size);
      bytes.remove_prefix(step.size);
    } else {
      out += "\xEF\xBF\xBD";
      bytes.remove_prefix(step.bad);
    }
  }
  return out;
}

CodePointSet::CodePointSet(Ranges ranges) : ranges_(std::move(ranges)) { normalize(); }

void CodePointSet::normalize() {
  std::sort(ranges_.begin(), ranges_.end());
  Ranges out;
  for (const auto& [first, last] : ranges_) {
    if (!out.empty() && first <= out.back().second + 1) {
      out.back().second = std::max(out.back().second, last);
    } else {
      out.emplace_back(first, last);
    }
  }
  ranges_ = std::move(out);
}

void CodePointSet::add(uint32_t first, uint32_t last) {
  ranges_.emplace_back(first, last);
  normalize();
}

void CodePointSet::add(const CodePointSet& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
  normalize();
}

CodePointSet CodePointSet::inverted() const {
  Ranges out;
  uint32_t next = 0;
  for (const auto& [first, last] : ranges_) {
    if (first > next) out.emplace_back(next, first - 1);
    next = last + 1;
  }
  if (next <= kMaxCodePoint) out.emplace_back(next, kMaxCodePoint);
  return CodePointSet(std::move(out));
}

CodePointSet CodePointSet::intersected(const CodePointSet& other) const {
  CodePointSet outside = inverted();
  outside.add(other.inverted());
  return outside.inverted();
}

CodePointSet CodePointSet::case_closed() const {
  Ranges out = ranges_;
  constexpr uint32_t kLastCased = 0x1FFFF;
  for (const auto& [first, last] : ranges_) {
    for (uint32_t c = first; c <= std::min(last, kLastCased); ++c) {
      const auto cp = static_cast<utf8proc_int32_t>(c);
      for (const utf8proc_int32_t v : {utf8proc_tolower(cp), utf8proc_toupper(cp)}) {
        if (v != cp) out.emplace_back(v, v);
      }
    }
  }
  // Simple foldings onto ASCII letters, which no upper- or lowercase mapping leads to.
  const auto pair = [&](uint32_t a, uint32_t b, uint32_t folded) {
    if (contains(a) || contains(b)) out.emplace_back(folded, folded);
    if (!contains(folded)) return;
    out.emplace_back(a, a);
    out.emplace_back(b, b);
  };
  pair('s', 'S', 0x17F);
  pair('k', 'K', 0x212A);
  std::erase_if(out, [&](const auto& r) {  // the dotted and dotless i fold to themselves alone
    return r.first == r.second && (r.first == 0x130 || r.first == 0x131) && !contains(r.first);
  });
  CodePointSet closed(std::move(out));
  if (!contains('i') && !contains('I') && (contains(0x130) || contains(0x131))) {
    CodePointSet ascii_i({{'I', 'I'}, {'i', 'i'}});
    closed = closed.intersected(ascii_i.inverted());
  }
  return closed;
}

bool CodePointSet::contains(uint32_t c) const {
  auto it = std::upper_bound(ranges_.begin(), ranges_.end(), std::pair{c, UINT32_MAX});
  return it != ranges_.begin() && c <= std::prev(it)->second;
}

CodePointTable::CodePointTable(const CodePointSet& set) : index_((kMaxCodePoint >> 8) + 1) {
  std::map<std::array<uint64_t, 4>, uint16_t> seen;
  auto range = set.ranges().begin();
  const auto end = set.ranges().end();
  for (uint32_t block = 0; block < index_.size(); ++block) {
    const uint32_t first = block << 8, last = first | 255;
    while (range != end && range->second < first) ++range;
    std::array<uint64_t, 4> bits{};
    for (auto r = range; r != end && r->first <= last; ++r) {
      const uint32_t to = std::min(r->second, last);
      for (uint32_t c = std::max(r->first, first); c <= to; ++c) {
        bits[(c >> 6) & 3] |= uint64_t{1} << (c & 63);
      }
    }
    const auto [it, added] = seen.emplace(bits, static_cast<uint16_t>(blocks_.size()));
    if (added) blocks_.push_back(bits);
    index_[block] = it->second;
  }
  for (uint32_t c = 0; c < 128; ++c) ascii_[c] = contains(c);
}

std::optional<CodePointSet> property_set(std::string_view name) {
  if (name.starts_with('^')) {
    auto set = property_set(name.substr(1));
    if (set) set = set->inverted();
    return set;
  }
  const std::string folded = fold_name(name);
  if (folded == "lc") return merged({"lu", "ll", "lt"});
  const std::string_view category = long_category_name(folded);
  const bool known = std::any_of(std::begin(kCategoryNames), std::end(kCategoryNames),
                                 [&](std::string_view n) { return n.starts_with(category); });
  if (known && !category.empty()) return categories(category);
  for (const NamedRanges& script : kScripts) {
    if (script.name == folded) return to_set(script.ranges);
  }
  return posix_set(folded);
}

const CodePointSet& whitespace_set() {
  static const CodePointSet set({{0x9, 0xD},
                                 {0x20, 0x20},
                                 {0x85, 0x85},
                                 {0xA0, 0xA0},
                                 {0x1680, 0x1680},
                                 {0x2000, 0x200A},
                                 {0x2028, 0x2029},
                                 {0x202F, 0x202F},
                                 {0x205F, 0x205F},
                                 {0x3000, 0x3000}});
  return set;
}

const CodePointSet& word_set() {
  static const CodePointSet set = to_set(kWord);
  return set;
}

const CodePointSet& rust_word_set() {
  static const CodePointSet set = [] {
    CodePointSet odd({{0xB2, 0xB3}, {0xB9, 0xB9}, {0xBC, 0xBE}});  // Oniguruma's alone
    CodePointSet out = word_set().intersected(odd.inverted());
    out.add(0x200C, 0x200D);
    return out;
  }();
  return set;
}

const CodePointSet& numeric_set() {
  static const CodePointSet set = [] {
    CodePointSet out = categories("n");
    out.add(0x11DE0, 0x11DE9);  // assigned in Unicode 17
    out.add(0x16FF4, 0x16FF6);
    return out;
  }();
  return set;
}

const CodePointSet& punctuation_set() {
  static const CodePointSet set = to_set(kPunctuation);
  return set;
}

const CodePointSet& bert_control_set() {
  static const CodePointSet set = to_set(kBertControl);
  return set;
}

const CodePointSet& bert_marks_set() {
  static const CodePointSet set = to_set(kBertMarks);
  return set;
}

const CodePointSet& accents_set() {
  static const CodePointSet set = to_set(kAccents);
  return set;
}

uint8_t script_class(uint32_t c) {
  const auto* run = std::upper_bound(std::begin(kScriptRuns), std::end(kScriptRuns), c << 8 | 255);
  return static_cast<uint8_t>(*std::prev(run) & 255);
}

bool is_whitespace(uint32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return whitespace_set().contains(c);
}

uint32_t to_lower(uint32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  const auto* it = std::lower_bound(std::begin(kLowercase), std::end(kLowercase), c,
                                    [](const Range& r, uint32_t v) { return r.first < v; });
  if (it != std::end(kLowercase) && it->first == c) return it->last;
  return static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

bool is_inert_in_normal_forms(uint32_t c) {
  static const CodePointSet set = to_set(kInertInNormalForms);
  return set.contains(c);
}

}  // namespace lorry::tokenizer
