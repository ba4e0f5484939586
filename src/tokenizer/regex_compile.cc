// Syntax tree into a program.
#include <algorithm>

#include "tokenizer/regex.h"
#include "tokenizer/regex_ast.h"
#include "tokenizer/regex_program.h"

namespace lorry::tokenizer {
namespace {

using regex::ByteSet;
using regex::FirstBytes;
using regex::Greed;
using regex::Instruction;
using regex::Kind;
using regex::kUnbounded;
using regex::Node;
using regex::Op;

constexpr size_t kMaxProgram = 200000;  // instructions

FirstBytes first_bytes(const Node& node);

ByteSet lead_bytes(const CodePointSet& set) {
  ByteSet out;
  for (const auto& [first, last] : set.ranges()) {
    for (uint32_t c = first; c <= last;) {
      std::string utf8;
      append_utf8(utf8, c);
      out.set(static_cast<uint8_t>(utf8[0]));
      // the next code point with another lead byte
      c = c < 0x80      ? c + 1
          : c < 0x800   ? (c | 0x3F) + 1
          : c < 0x10000 ? (c | 0xFFF) + 1
                        : (c | 0x3FFFF) + 1;
    }
  }
  return out;
}

FirstBytes first_of_sequence(const Node& node) {
  FirstBytes out{.nullable = true};
  for (const auto& child : node.children) {
    const FirstBytes f = first_bytes(*child);
    out.bytes |= f.bytes;
    if (!f.nullable) {
      out.nullable = false;
      break;
    }
  }
  return out;
}

FirstBytes first_bytes(const Node& node) {
  switch (node.kind) {
    case Kind::kSet:
      return {lead_bytes(node.set), false};
    case Kind::kSequence:
      return first_of_sequence(node);
    case Kind::kAlternation: {
      FirstBytes out;
      for (const auto& child : node.children) {
        const FirstBytes f = first_bytes(*child);
        out.bytes |= f.bytes;
        out.nullable |= f.nullable;
      }
      return out;
    }
    case Kind::kRepeat: {
      FirstBytes out = first_bytes(*node.children[0]);
      out.nullable |= node.min == 0;
      return out;
    }
    case Kind::kAtomic:
      return first_bytes(*node.children[0]);
    default:
      return {.nullable = true};
  }
}

/// Fewest and most characters that `node` takes; max kUnbounded if there is no bound.
std::pair<uint32_t, uint32_t> width(const Node& node) {
  const auto bounded = [](uint64_t n) {
    return static_cast<uint32_t>(std::min<uint64_t>(n, kUnbounded));
  };
  const auto plus = [&](uint64_t a, uint64_t b) { return bounded(a + b); };
  const auto times = [&](uint64_t a, uint64_t b) { return bounded(a * b); };
  switch (node.kind) {
    case Kind::kSet:
      return {1, 1};
    case Kind::kSequence: {
      std::pair<uint32_t, uint32_t> out{0, 0};
      for (const auto& child : node.children) {
        const auto w = width(*child);
        out = {plus(out.first, w.first), plus(out.second, w.second)};
      }
      return out;
    }
    case Kind::kAlternation: {
      std::pair<uint32_t, uint32_t> out{kUnbounded, 0};
      for (const auto& child : node.children) {
        const auto w = width(*child);
        out = {std::min(out.first, w.first), std::max(out.second, w.second)};
      }
      return out;
    }
    case Kind::kRepeat: {
      const auto w = width(*node.children[0]);
      return {times(w.first, node.min), times(w.second, node.max)};
    }
    case Kind::kAtomic:
      return width(*node.children[0]);
    default:
      return {0, 0};
  }
}

}  // namespace

class RegexCompiler {
 public:
  static Result<Regex> compile(std::string_view pattern) {
    LORRY_ASSIGN(const std::unique_ptr<Node> root, regex::parse(pattern));
    RegexCompiler c;
    LORRY_TRY(c.emit(*root));
    c.add({.op = Op::kMatch});
    if (c.p_->code.size() > kMaxProgram) {
      return unsupported("split pattern is too large");
    }
    c.p_->first = first_bytes(*root);
    c.p_->dfa = RegexDfa::build(*root);
    c.p_->runs = runs_of(*root);
    return Regex(std::move(c.p_));
  }

 private:
  static std::optional<Regex::Runs> runs_of(const Node& root) {
    if (root.kind == Kind::kSet) return Regex::Runs{root.set, 1};
    const bool is_run = root.kind == Kind::kRepeat && root.greed != regex::Greed::kLazy &&
                        root.min == 1 && root.children[0]->kind == Kind::kSet;
    if (!is_run) return std::nullopt;
    static_assert(Regex::kUnbounded == regex::kUnbounded);
    return Regex::Runs{root.children[0]->set, root.max};
  }

  uint32_t here() const { return static_cast<uint32_t>(p_->code.size()); }
  uint32_t add(Instruction i) {
    i.next = i.op == Op::kSplit || i.op == Op::kJump ? i.next : here() + 1;
    p_->code.push_back(i);
    return here() - 1;
  }
  Instruction& at(uint32_t index) { return p_->code[index]; }

  uint32_t add_set(const CodePointSet& set) {
    for (size_t i = 0; i < sources_.size(); ++i) {
      if (sources_[i].ranges() == set.ranges()) return static_cast<uint32_t>(i);
    }
    sources_.push_back(set);
    p_->sets.emplace_back(set);
    return static_cast<uint32_t>(sources_.size() - 1);
  }

  uint32_t add_first(const FirstBytes& first) {
    p_->firsts.push_back(first.bytes);
    return static_cast<uint32_t>(p_->firsts.size() - 1);
  }

  static bool is_ascii_char(const Node& node) {
    const auto& r = node.set.ranges();
    return node.kind == Kind::kSet && r.size() == 1 && r[0].first == r[0].second &&
           r[0].first < 0x80;
  }

  Result<> emit(const Node& node) {
    if (here() > kMaxProgram) return unsupported("split pattern is too large");
    switch (node.kind) {
      case Kind::kEmpty:
        return {};
      case Kind::kSet:
        if (is_ascii_char(node)) {
          add({.op = Op::kByte, .byte = static_cast<uint8_t>(node.set.ranges()[0].first)});
        } else {
          add({.op = Op::kSet, .arg = add_set(node.set)});
        }
        return {};
      case Kind::kSequence:
        for (const auto& child : node.children) LORRY_TRY(emit(*child));
        return {};
      case Kind::kAlternation:
        return emit_alternation(node);
      case Kind::kRepeat:
        return emit_repeat(node);
      case Kind::kLookAhead:
      case Kind::kLookBehind:
      case Kind::kAtomic:
        return emit_sub(node);
      default:
        add({.op = Op::kAssert, .arg = static_cast<uint32_t>(node.kind)});
        return {};
    }
  }

  Result<> emit_alternation(const Node& node) {
    std::vector<uint32_t> jumps;
    for (size_t i = 0; i + 1 < node.children.size(); ++i) {
      const FirstBytes first = first_bytes(*node.children[i]);
      const uint32_t split = add({.op = Op::kSplit});
      at(split).next = here();
      at(split).filter_next = !first.nullable;
      at(split).first_next = add_first(first);
      LORRY_TRY(emit(*node.children[i]));
      jumps.push_back(add({.op = Op::kJump}));
      at(split).other = here();
      FirstBytes rest;
      for (size_t k = i + 1; k < node.children.size(); ++k) {
        const FirstBytes f = first_bytes(*node.children[k]);
        rest.bytes |= f.bytes;
        rest.nullable |= f.nullable;
      }
      at(split).filter_other = !rest.nullable;
      at(split).first_other = add_first(rest);
    }
    LORRY_TRY(emit(*node.children.back()));
    for (const uint32_t j : jumps) at(j).next = here();
    return {};
  }

  Result<> emit_repeat(const Node& node) {
    const Node& body = *node.children[0];
    if (node.max == 0) return {};
    if (body.kind == Kind::kSet) {
      add({.op = Op::kRun,
           .greed = node.greed,
           .arg = add_set(body.set),
           .min = node.min,
           .max = node.max});
      return {};
    }
    if (node.greed == Greed::kPossessive) {
      const uint32_t sub = add({.op = Op::kAtomic});
      at(sub).other = here();
      LORRY_TRY(emit_loop(node, body));
      add({.op = Op::kMatch});
      at(sub).next = here();
      return {};
    }
    return emit_loop(node, body);
  }

  Result<> emit_loop(const Node& node, const Node& body) {
    for (uint32_t i = 0; i < node.min; ++i) {
      const uint32_t before = here();
      LORRY_TRY(emit(body));
      if (here() == before) return {};  // an empty body, however often
    }
    if (node.max == kUnbounded) {
      const uint32_t mark = p_->registers++;
      const uint32_t split = add({.op = Op::kSplit, .greed = node.greed});
      const uint32_t start = here();
      add({.op = Op::kMark, .arg = mark});
      LORRY_TRY(emit(body));
      add({.op = Op::kProgress, .arg = mark});
      at(add({.op = Op::kJump})).next = split;
      set_split(split, start, here());
      return {};
    }
    std::vector<uint32_t> splits;
    for (uint32_t i = node.min; i < node.max; ++i) {
      splits.push_back(add({.op = Op::kSplit, .greed = node.greed}));
      const uint32_t start = here();
      at(splits.back()).next = start;
      LORRY_TRY(emit(body));
    }
    for (const uint32_t s : splits) set_split(s, s + 1, here());
    return {};
  }

  /// Into the body first, or past it first when lazy.
  void set_split(uint32_t split, uint32_t body, uint32_t past) {
    const bool lazy = at(split).greed == Greed::kLazy;
    at(split).next = lazy ? past : body;
    at(split).other = lazy ? body : past;
  }

  Result<> emit_sub(const Node& node) {
    const bool behind = node.kind == Kind::kLookBehind;
    const auto [min, max] = width(*node.children[0]);
    if (behind && max > 255) {
      return unsupported("look-behind without a bound in a split pattern");
    }
    const uint32_t sub = add({.op = node.kind == Kind::kAtomic ? Op::kAtomic : Op::kLook,
                              .negative = node.negative,
                              .arg = behind ? 1u : 0u,
                              .min = min,
                              .max = max});
    at(sub).other = here();
    LORRY_TRY(emit(*node.children[0]));
    if (behind) add({.op = Op::kAtMark});
    add({.op = Op::kMatch});
    at(sub).next = here();
    return {};
  }

  std::unique_ptr<Regex::Program> p_ = std::make_unique<Regex::Program>();
  std::vector<CodePointSet> sources_;
};

Result<Regex> Regex::compile(std::string_view pattern) { return RegexCompiler::compile(pattern); }

}  // namespace lorry::tokenizer
