// Syntax tree into a program, and the backtracking machine that runs it.
#include "text/regex.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <optional>
#include <vector>

#include "text/regex_ast.h"
#include "text/regex_dfa.h"

namespace lorry::text {
namespace {

using regex::Greed;
using regex::Kind;
using regex::kUnbounded;
using regex::Node;
using ByteSet = std::bitset<256>;

constexpr size_t kMaxProgram = 200000;    // instructions
constexpr uint64_t kMaxSteps = 20000000;  // backtracks for one start position
constexpr size_t kFail = SIZE_MAX;

enum class Op : uint8_t {
  kByte,      // text[pos] == byte
  kSet,       // one character of sets[arg]
  kRun,       // min to max characters of sets[arg], by greed
  kSplit,     // try `next`, then `other`; `first` says which bytes can start each
  kJump,      // to next
  kMark,      // registers[arg] = pos
  kProgress,  // fail if pos == registers[arg]: a loop whose body matched nothing
  kLook,      // sub-program at `other`, go on at `next`
  kAtomic,    // sub-program at `other`, go on at `next` behind what it took
  kAssert,    // a Kind in arg
  kAtMark,    // pos == look-behind's end
  kMatch,
};

struct Instruction {
  Op op;
  Greed greed = Greed::kGreedy;
  bool negative = false;
  bool filter_next = false, filter_other = false;  // kSplit: whether the first-byte sets hold
  uint8_t byte = 0;
  uint32_t arg = 0;
  uint32_t min = 0, max = 0;  // kRun; look-behind: lengths in characters
  uint32_t next = 0, other = 0;
  uint32_t first_next = 0, first_other = 0;  // into Program::firsts
};

struct FirstBytes {
  ByteSet bytes;
  bool nullable = false;  // may match without reading a byte
};

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

struct Regex::Program {
  std::vector<Instruction> code;
  std::vector<CodePointTable> sets;
  std::vector<ByteSet> firsts;
  uint32_t registers = 0;
  FirstBytes first;
  std::optional<RegexDfa> dfa;  ///< the same pattern, faster, where that is possible
};

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
    return Regex(std::move(c.p_));
  }

 private:
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
    if (behind && (max == kUnbounded || max > 255)) {
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

 public:
  /// Runs a program over one text.
  class Machine {
   public:
    Machine(const Regex::Program& program, std::string_view text, std::vector<size_t>& stack)
        : p_(program), text_(text), stack_(stack), registers_(program.registers, 0) {}

    size_t match_at(size_t pos) {
      steps_ = 0;
      stack_.clear();
      return run(0, pos);
    }

   private:
    // A frame on the stack: kind and instruction, then up to two positions.
    enum Frame : size_t { kGoto, kShrink, kGrow, kRestore };
    void push(Frame kind, size_t index, size_t a, size_t b) {
      stack_.insert(stack_.end(), {kind | index << 2, a, b});
    }

    bool in_set(const CodePointTable& set, size_t& pos) const {
      if (pos >= text_.size()) return false;
      const auto byte = static_cast<uint8_t>(text_[pos]);
      if (byte < 0x80) {
        if (!set.ascii(byte)) return false;
        ++pos;
        return true;
      }
      const Decoded d = decode_utf8(text_.data() + pos);
      if (!set.contains(d.code_point)) return false;
      pos += d.size;
      return true;
    }

    size_t step_back(size_t pos) const {
      do --pos;
      while (is_utf8_continuation(text_[pos]));
      return pos;
    }

    bool feasible(bool filter, uint32_t first, size_t pos) const {
      if (!filter) return true;
      return pos < text_.size() && p_.firsts[first][static_cast<uint8_t>(text_[pos])];
    }

    bool run_of(const Instruction& in, uint32_t pc, size_t& pos) {
      const CodePointTable& set = p_.sets[in.arg];
      for (uint32_t n = 0; n < in.min; ++n) {
        if (!in_set(set, pos)) return false;
      }
      if (in.greed == Greed::kLazy) {
        if (in.max > in.min) push(kGrow, pc, pos, in.min);
        return true;
      }
      const size_t shortest = pos;
      if (in.max == kUnbounded) {
        while (in_set(set, pos)) {
        }
      } else {
        for (uint32_t n = in.min; n < in.max && in_set(set, pos);) ++n;
      }
      if (pos > shortest && in.greed == Greed::kGreedy) push(kShrink, pc, shortest, pos);
      return true;
    }

    bool is_word_at(size_t pos) const {
      static const CodePointTable word(word_set());
      return pos < text_.size() && word.contains(decode_utf8(text_.data() + pos).code_point);
    }

    bool holds(Kind kind, size_t pos) const {
      const size_t n = text_.size();
      switch (kind) {
        case Kind::kTextBegin:
          return pos == 0;
        case Kind::kTextEnd:
          return pos == n;
        case Kind::kTextEndOrNewline:
          return pos == n || (pos + 1 == n && text_[pos] == '\n');
        case Kind::kLineBegin:  // not behind a newline that ends the text
          return pos == 0 || (text_[pos - 1] == '\n' && pos < n);
        case Kind::kLineEnd:
          return pos == n || text_[pos] == '\n';
        default: {
          const bool before = pos > 0 && is_word_at(step_back(pos));
          return (before != is_word_at(pos)) == (kind == Kind::kWordBoundary);
        }
      }
    }

    bool look(const Instruction& in, size_t pos) {
      bool found = false;
      if (in.arg == 0) {
        found = run(in.other, pos) != kFail;
      } else {
        const size_t outer = look_end_;
        look_end_ = pos;
        size_t start = pos;
        for (uint32_t n = 0; n <= in.max && !found; ++n) {
          if (n >= in.min) found = run(in.other, start) != kFail;
          if (start == 0) break;
          start = step_back(start);
        }
        look_end_ = outer;
      }
      return found != in.negative;
    }

    /// Where the program at `pc` ends from `pos`, or kFail. The stack is as before afterwards.
    size_t run(uint32_t pc, size_t pos) {
      const size_t base = stack_.size();
      for (;;) {
        const Instruction& in = p_.code[pc];
        bool ok = true;
        switch (in.op) {
          case Op::kByte:
            ok = pos < text_.size() && static_cast<uint8_t>(text_[pos]) == in.byte;
            if (ok) ++pos, pc = in.next;
            break;
          case Op::kSet:
            ok = in_set(p_.sets[in.arg], pos);
            if (ok) pc = in.next;
            break;
          case Op::kRun:
            ok = run_of(in, pc, pos);
            if (ok) pc = in.next;
            break;
          case Op::kSplit:
            if (!feasible(in.filter_next, in.first_next, pos)) {
              pc = in.other;
            } else {
              if (feasible(in.filter_other, in.first_other, pos)) push(kGoto, in.other, pos, 0);
              pc = in.next;
            }
            break;
          case Op::kJump:
            pc = in.next;
            break;
          case Op::kMark:
            push(kRestore, in.arg, registers_[in.arg], 0);
            registers_[in.arg] = pos;
            pc = in.next;
            break;
          case Op::kProgress:
            ok = pos != registers_[in.arg];
            if (ok) pc = in.next;
            break;
          case Op::kLook:
            ok = look(in, pos);
            if (ok) pc = in.next;
            break;
          case Op::kAtomic: {
            const size_t end = run(in.other, pos);
            ok = end != kFail;
            if (ok) pos = end, pc = in.next;
            break;
          }
          case Op::kAssert:
            ok = holds(static_cast<Kind>(in.arg), pos);
            if (ok) pc = in.next;
            break;
          case Op::kAtMark:
            ok = pos == look_end_;
            if (ok) pc = in.next;
            break;
          case Op::kMatch:
            stack_.resize(base);
            return pos;
        }
        if (!ok && !backtrack(base, pc, pos)) return kFail;
      }
    }

    bool backtrack(size_t base, uint32_t& pc, size_t& pos) {
      while (stack_.size() > base) {
        if (++steps_ > kMaxSteps) {
          stack_.resize(base);
          return false;
        }
        const size_t top = stack_.size() - 3;
        const size_t index = stack_[top] >> 2;
        size_t& a = stack_[top + 1];
        size_t& b = stack_[top + 2];
        switch (static_cast<Frame>(stack_[top] & 3)) {
          case kGoto:
            pc = static_cast<uint32_t>(index);
            pos = a;
            stack_.resize(top);
            return true;
          case kShrink:  // one character fewer of a run that began its free part at a
            b = step_back(b);
            pos = b;
            pc = p_.code[index].next;
            if (b == a) stack_.resize(top);
            return true;
          case kGrow: {  // one character more of a lazy run
            const Instruction& in = p_.code[index];
            size_t next = a;
            if (!in_set(p_.sets[in.arg], next)) {
              stack_.resize(top);
              break;
            }
            pos = next;
            pc = in.next;
            a = next;
            if (in.max != kUnbounded && ++b == in.max) stack_.resize(top);
            return true;
          }
          case kRestore:
            registers_[index] = a;
            stack_.resize(top);
            break;
        }
      }
      return false;
    }

    const Regex::Program& p_;
    std::string_view text_;
    std::vector<size_t>& stack_;
    std::vector<size_t> registers_;
    uint64_t steps_ = 0;
    size_t look_end_ = 0;
  };
};

Regex::Regex(std::unique_ptr<const Program> program) : program_(std::move(program)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

Result<Regex> Regex::compile(std::string_view pattern) { return RegexCompiler::compile(pattern); }

namespace {

/// The leftmost match from `from` on; match_at(position) says where one that begins there ends.
template <typename MatchAt>
bool find_first(std::string_view text, size_t from, const FirstBytes& first, MatchAt match_at,
                Regex::Match& match) {
  for (size_t pos = from; pos <= text.size();) {
    if (pos == text.size() ? first.nullable
                           : first.nullable || first.bytes[static_cast<uint8_t>(text[pos])]) {
      if (const size_t end = match_at(pos); end != kFail) {
        match = {pos, end};
        return true;
      }
    }
    if (pos == text.size()) break;
    pos += utf8_size(text[pos]);
  }
  return false;
}

}  // namespace

bool Regex::find(std::string_view text, size_t from, Match& match) const {
  if (const auto& dfa = program_->dfa) {
    static_assert(RegexDfa::kNoMatch == kFail);
    const auto match_at = [&](size_t pos) { return dfa->match(text, pos); };
    return find_first(text, from, program_->first, match_at, match);
  }
  thread_local std::vector<size_t> stack;
  RegexCompiler::Machine machine(*program_, text, stack);
  const auto match_at = [&](size_t pos) { return machine.match_at(pos); };
  return find_first(text, from, program_->first, match_at, match);
}

bool Regex::is_automaton() const { return program_->dfa.has_value(); }

void Regex::split(std::string_view text, std::span<const Match> pieces,
                  std::vector<Match>& parts) const {
  if (program_->dfa) return program_->dfa->split(text, pieces, parts);
  const auto push = [&](size_t begin, size_t end) {
    if (begin < end) parts.push_back({begin, end});
  };
  for (const Match& piece : pieces) {
    Iterator matches(*this, text.substr(piece.begin, piece.end - piece.begin));
    size_t done = piece.begin;
    for (Match m; matches.next(m); done = piece.begin + m.end) {
      push(done, piece.begin + m.begin);
      push(piece.begin + m.begin, piece.begin + m.end);
    }
    push(done, piece.end);
  }
}

bool Regex::Iterator::next(Match& match) {
  while (from_ <= text_.size() && regex_.find(text_, from_, match)) {
    if (match.begin == match.end && match.end == last_end_) {
      from_ += from_ < text_.size() ? utf8_size(text_[from_]) : 1;
      continue;
    }
    from_ = match.end;
    last_end_ = match.end;
    return true;
  }
  from_ = text_.size() + 1;
  return false;
}

}  // namespace lorry::text
