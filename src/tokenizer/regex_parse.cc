// Pattern text into a syntax tree: Oniguruma's Ruby syntax.
#include <charconv>
#include <optional>

#include "tokenizer/regex_ast.h"

namespace lorry::tokenizer::regex {
namespace {

using NodePtr = std::unique_ptr<Node>;

constexpr size_t kMaxPattern = 16384;  // bytes; the longest known patterns have some hundred
constexpr uint32_t kMaxRepeat = 100000;
constexpr int kMaxDepth = 200;
constexpr int kMaxQuantifiers = 8;  // one behind the other

struct Flags {
  bool ignore_case = false;
  bool dot_all = false;   // (?m)
  bool extended = false;  // (?x)
};

NodePtr make(Kind kind) {
  auto node = std::make_unique<Node>();
  node->kind = kind;
  return node;
}

NodePtr make_set(CodePointSet set) {
  auto node = make(Kind::kSet);
  node->set = std::move(set);
  return node;
}

class Parser {
 public:
  explicit Parser(std::string_view pattern) : text_(pattern) {}

  Result<NodePtr> parse() {
    LORRY_ASSIGN(NodePtr node, alternation(Flags{}, 0));
    if (pos_ != text_.size()) return error("unmatched ')'");
    return node;
  }

 private:
  Error error(std::string_view what) const {
    std::string shown(text_.substr(0, 200));
    if (shown.size() < text_.size()) shown += "...";
    return unsupported("split pattern, byte " + std::to_string(pos_) + ": " + std::string(what) +
                       " in " + shown);
  }

  bool done() const { return pos_ >= text_.size(); }
  char peek() const { return done() ? '\0' : text_[pos_]; }
  bool take(std::string_view token) {
    if (!text_.substr(pos_).starts_with(token)) return false;
    pos_ += token.size();
    return true;
  }
  uint32_t take_code_point() {
    const Decoded d = decode_utf8(text_.data() + pos_);
    pos_ += d.size;
    return d.code_point;
  }

  Result<NodePtr> alternation(Flags flags, int depth) {
    if (depth > kMaxDepth) return error("groups nested too deeply");
    auto node = make(Kind::kAlternation);
    do {
      LORRY_ASSIGN(NodePtr branch, sequence(flags, depth));
      node->children.push_back(std::move(branch));
    } while (take("|"));
    if (node->children.size() == 1) return std::move(node->children[0]);
    return node;
  }

  Result<NodePtr> sequence(Flags& flags, int depth) {
    auto node = make(Kind::kSequence);
    while (!done() && peek() != '|' && peek() != ')') {
      if (flags.extended && skip_extended()) continue;
      if (take("(?#")) {
        while (!done() && peek() != ')') ++pos_;
        if (!take(")")) return error("comment without end");
        continue;
      }
      LORRY_ASSIGN(NodePtr item, atom(flags, depth));
      if (!item) break;  // (?i) took the rest
      LORRY_ASSIGN(item, quantified(std::move(item)));
      node->children.push_back(std::move(item));
    }
    if (rest_) node->children.push_back(std::move(rest_));
    if (node->children.size() == 1) return std::move(node->children[0]);
    return node;
  }

  bool skip_extended() {
    if (peek() == '#') {
      while (!done() && peek() != '\n') ++pos_;
      return true;
    }
    if (peek() == ' ' || (peek() >= 9 && peek() <= 13)) {
      ++pos_;
      return true;
    }
    return false;
  }

  Result<NodePtr> quantified(NodePtr item) {
    for (int n = 0;; ++n) {
      if (n > kMaxQuantifiers) return error("too many quantifiers in a row");
      uint32_t min = 0, max = 0;
      bool interval = false;
      if (take("*")) {
        max = kUnbounded;
      } else if (take("+")) {
        min = 1, max = kUnbounded;
      } else if (take("?")) {
        max = 1;
      } else if (peek() == '{' && take_interval(min, max)) {
        interval = true;
        if (max != kUnbounded && max > kMaxRepeat) return error("repeat count too large");
        if (min > kMaxRepeat) return error("repeat count too large");
        if (max < min) return error("repeat counts out of order");
      } else {
        return item;
      }
      auto repeat = make(Kind::kRepeat);
      repeat->min = min;
      repeat->max = max;
      // {n,m}+ is a repeat of a repeat and {n}? an optional one, in Ruby's syntax
      const bool exact = interval && min == max;
      if (!exact && take("?")) {
        repeat->greed = Greed::kLazy;
      } else if (!interval && take("+")) {
        repeat->greed = Greed::kPossessive;
      }
      repeat->children.push_back(std::move(item));
      item = std::move(repeat);
    }
  }

  bool take_number(uint32_t& value) {
    const char* begin = text_.data() + pos_;
    const auto [end, ec] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (ec != std::errc{} || end == begin) return false;
    pos_ += static_cast<size_t>(end - begin);
    return true;
  }

  /// {n} {n,} {,m} {n,m}; anything else is a literal brace.
  bool take_interval(uint32_t& min, uint32_t& max) {
    const size_t start = pos_;
    ++pos_;
    const bool has_min = take_number(min);
    if (!has_min) min = 0;
    bool has_max = false;
    if (take(",")) {
      has_max = take_number(max);
      if (!has_max) max = kUnbounded;
    } else {
      max = min;
    }
    if ((has_min || has_max) && take("}")) return true;
    pos_ = start;
    return false;
  }

  /// nullptr when a bare (?i) has parsed the rest of the sequence into rest_.
  Result<NodePtr> atom(Flags& flags, int depth) {
    switch (peek()) {
      case '(':
        return group(flags, depth);
      case '[': {
        ++pos_;
        LORRY_ASSIGN(CodePointSet set, char_class(flags, depth + 1));
        return make_set(std::move(set));
      }
      case '.':
        ++pos_;
        return make_set(flags.dot_all ? CodePointSet().inverted()
                                      : CodePointSet::of('\n').inverted());
      case '^':
        ++pos_;
        return make(Kind::kLineBegin);
      case '$':
        ++pos_;
        return make(Kind::kLineEnd);
      case '\\':
        return escape(flags);
      case '*':
      case '+':
      case '?':
        return error("nothing to repeat");
      default:
        return literal(take_code_point(), flags);
    }
  }

  NodePtr literal(uint32_t code_point, const Flags& flags) {
    const CodePointSet set = CodePointSet::of(code_point);
    return make_set(flags.ignore_case ? set.case_closed() : set);
  }

  Result<NodePtr> group(Flags& flags, int depth) {
    ++pos_;
    Kind kind = Kind::kSequence;
    bool negative = false;
    Flags inner = flags;
    if (take("?")) {
      if (take(":")) {
      } else if (take("=")) {
        kind = Kind::kLookAhead;
      } else if (take("!")) {
        kind = Kind::kLookAhead, negative = true;
      } else if (take("<=")) {
        kind = Kind::kLookBehind;
      } else if (take("<!")) {
        kind = Kind::kLookBehind, negative = true;
      } else if (take(">")) {
        kind = Kind::kAtomic;
      } else if (peek() == '<' || peek() == '\'') {  // a named group is just a group
        const char end = peek() == '<' ? '>' : '\'';
        ++pos_;
        while (!done() && peek() != end) ++pos_;
        if (done()) return error("group name without end");
        ++pos_;
      } else {
        LORRY_TRY(take_flags(inner));
        if (take(")")) {  // (?i): up to the end of the enclosing group
          LORRY_ASSIGN(rest_, alternation(inner, depth + 1));
          return NodePtr();
        }
        if (!take(":")) return error("group of this kind is not supported");
      }
    }
    LORRY_ASSIGN(NodePtr body, alternation(inner, depth + 1));
    if (!take(")")) return error("missing ')'");
    if (kind == Kind::kSequence) return body;
    auto node = make(kind);
    node->negative = negative;
    node->children.push_back(std::move(body));
    return node;
  }

  Result<> take_flags(Flags& flags) {
    bool on = true;
    for (;; ++pos_) {
      switch (peek()) {
        case '-':
          on = false;
          continue;
        case 'i':
          flags.ignore_case = on;
          continue;
        case 'm':
          flags.dot_all = on;
          continue;
        case 'x':
          flags.extended = on;
          continue;
        case ')':
        case ':':
          return {};
        default:
          return error("group of this kind is not supported");
      }
    }
  }

  /// The set that a class escape means (\s, \p{L}, ...), pos_ behind the backslash.
  Result<std::optional<CodePointSet>> class_escape() {
    const char c = peek();
    const auto set = [&](const CodePointSet& s, bool inverted) {
      ++pos_;
      return std::optional(inverted ? s.inverted() : s);
    };
    switch (c) {
      case 's':
      case 'S':
        return set(whitespace_set(), c == 'S');
      case 'w':
      case 'W':
        return set(word_set(), c == 'W');
      case 'd':
      case 'D':
        return set(*property_set("Nd"), c == 'D');
      case 'h':
      case 'H':
        return set(*property_set("xdigit"), c == 'H');
      case 'p':
      case 'P': {
        ++pos_;
        if (!take("{")) return error("\\p without braces is not supported");
        const size_t end = text_.find('}', pos_);
        if (end == std::string_view::npos) return error("\\p{ without end");
        const std::string_view name = text_.substr(pos_, end - pos_);
        auto found = property_set(name);
        if (!found) return error("character property '" + std::string(name) + "' is not supported");
        pos_ = end + 1;
        return std::optional(c == 'P' ? found->inverted() : *found);
      }
      default:
        return std::optional<CodePointSet>();
    }
  }

  /// A code point written as an escape, pos_ behind the backslash.
  Result<uint32_t> char_escape() {
    const uint32_t c = take_code_point();
    switch (c) {
      case 't':
        return 9u;
      case 'n':
        return 10u;
      case 'v':
        return 11u;
      case 'f':
        return 12u;
      case 'r':
        return 13u;
      case 'a':
        return 7u;
      case 'e':
        return 27u;
      case 'x':
        if (take("{")) return hex(8, true);
        return hex(2, false);
      case 'u':
        return hex(4, false);
      case '0':
        return 0u;
      default:
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '1' && c <= '9')) {
          return error("escape \\" + std::string(1, static_cast<char>(c)) + " is not supported");
        }
        return c;
    }
  }

  Result<uint32_t> hex(size_t digits, bool braced) {
    uint32_t value = 0;
    const std::string_view rest = text_.substr(pos_, digits);
    const auto [end, ec] = std::from_chars(rest.data(), rest.data() + rest.size(), value, 16);
    const auto n = static_cast<size_t>(end - rest.data());
    if (ec != std::errc{} || n == 0 || value > kMaxCodePoint) return error("bad hex escape");
    if (!braced && n != digits && digits == 4) return error("bad hex escape");
    pos_ += n;
    if (braced && !take("}")) return error("bad hex escape");
    if (!braced && digits == 2 && value > 0x7F) return error("\\x above 7F is not supported");
    return value;
  }

  Result<NodePtr> escape(const Flags& flags) {
    ++pos_;
    if (done()) return error("pattern ends in a backslash");
    LORRY_ASSIGN(std::optional<CodePointSet> set, class_escape());
    if (set) return make_set(std::move(*set));
    switch (peek()) {
      case 'A':
        return ++pos_, make(Kind::kTextBegin);
      case 'z':
        return ++pos_, make(Kind::kTextEnd);
      case 'Z':
        return ++pos_, make(Kind::kTextEndOrNewline);
      case 'b':
        return ++pos_, make(Kind::kWordBoundary);
      case 'B':
        return ++pos_, make(Kind::kNotWordBoundary);
      case 'N':
        return ++pos_, make_set(CodePointSet::of('\n').inverted());
      case 'O':
        return ++pos_, make_set(CodePointSet().inverted());
      case 'R':
        return ++pos_, line_break();
      default:
        break;
    }
    LORRY_ASSIGN(const uint32_t c, char_escape());
    return literal(c, flags);
  }

  NodePtr line_break() {
    auto pair = make(Kind::kSequence);
    pair->children.push_back(make_set(CodePointSet::of('\r')));
    pair->children.push_back(make_set(CodePointSet::of('\n')));
    auto either = make(Kind::kAlternation);
    either->children.push_back(std::move(pair));
    either->children.push_back(make_set(CodePointSet({{10, 13}, {0x85, 0x85}, {0x2028, 0x2029}})));
    auto atomic = make(Kind::kAtomic);
    atomic->children.push_back(std::move(either));
    return atomic;
  }

  /// [...] behind its bracket: ranges, escapes, nested classes, [:posix:], &&.
  Result<CodePointSet> char_class(const Flags& flags, int depth) {
    if (depth > kMaxDepth) return error("classes nested too deeply");
    const bool inverted = take("^");
    std::optional<CodePointSet> all;  // what stands before the last &&
    CodePointSet::Ranges ranges;
    const auto close_operand = [&] {
      CodePointSet operand(std::move(ranges));
      ranges.clear();
      all = all ? all->intersected(operand) : std::move(operand);
    };
    const auto add_set = [&](const CodePointSet& set) {
      ranges.insert(ranges.end(), set.ranges().begin(), set.ranges().end());
    };
    for (bool first = true;; first = false) {
      if (done()) return error("class without ']'");
      if (!first && take("]")) break;
      if (take("&&")) {
        close_operand();
        continue;
      }
      if (text_.substr(pos_).starts_with("[:")) {
        if (const size_t end = text_.find(":]", pos_ + 2); end != std::string_view::npos) {
          LORRY_ASSIGN(const CodePointSet set, posix(text_.substr(pos_ + 2, end - pos_ - 2)));
          pos_ = end + 2;
          add_set(set);
          continue;
        }
      }
      if (take("[")) {
        LORRY_ASSIGN(const CodePointSet set, char_class(flags, depth + 1));
        add_set(set);
        continue;
      }
      std::optional<CodePointSet> set;
      LORRY_ASSIGN(const uint32_t low, class_char(set));
      if (set) {
        add_set(*set);
        continue;
      }
      uint32_t high = low;
      if (peek() == '-' && pos_ + 1 < text_.size() && text_[pos_ + 1] != ']') {
        ++pos_;
        std::optional<CodePointSet> end_set;
        LORRY_ASSIGN(high, class_char(end_set));
        if (end_set) {  // [a-\s]: three members
          add_set(*end_set);
          ranges.emplace_back('-', '-');
          high = low;
        }
        if (high < low) return error("class range out of order");
      }
      ranges.emplace_back(low, high);
    }
    close_operand();
    if (flags.ignore_case) all = all->case_closed();
    return inverted ? all->inverted() : *all;
  }

  /// One character of a class, or `set` when it is a class escape.
  Result<uint32_t> class_char(std::optional<CodePointSet>& set) {
    if (done()) return error("class without ']'");
    if (peek() != '\\') return take_code_point();
    ++pos_;
    if (done()) return error("pattern ends in a backslash");
    LORRY_ASSIGN(set, class_escape());
    if (set) return 0u;
    if (take("b")) return 8u;
    return char_escape();
  }

  Result<CodePointSet> posix(std::string_view name) {
    const bool inverted = name.starts_with('^');
    if (inverted) name.remove_prefix(1);
    std::optional<CodePointSet> set;
    if (name == "punct") {  // symbols too, unlike \p{Punct}
      set = property_set("P");
      set->add(*property_set("S"));
    } else {
      set = property_set(name);
    }
    if (!set) return error("class [:" + std::string(name) + ":] is not supported");
    return inverted ? set->inverted() : *set;
  }

  std::string_view text_;
  size_t pos_ = 0;
  NodePtr rest_;
};

}  // namespace

Result<std::unique_ptr<Node>> parse(std::string_view pattern) {
  if (!is_valid_utf8(pattern)) return invalid_input("split pattern is not UTF-8");
  if (pattern.size() > kMaxPattern) {
    return unsupported("split pattern is too large: " + std::to_string(pattern.size()) + " bytes");
  }
  return Parser(pattern).parse();
}

}  // namespace lorry::tokenizer::regex
