// The backtracking machine that runs a program, and the matches that it finds.
#include "tokenizer/regex.h"

#include <vector>

#include "tokenizer/regex_ast.h"
#include "tokenizer/regex_program.h"

namespace lorry::tokenizer {
namespace {

using regex::FirstBytes;
using regex::Greed;
using regex::Instruction;
using regex::Kind;
using regex::kUnbounded;
using regex::Op;

constexpr uint64_t kMaxSteps = 20000000;  // backtracks for one start position
constexpr size_t kFail = SIZE_MAX;

}  // namespace

/// Runs a program over one text.
class RegexMachine {
 public:
  RegexMachine(const Regex::Program& program, std::string_view text, std::vector<size_t>& stack)
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

Regex::Regex(std::unique_ptr<Program> program) : program_(std::move(program)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

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
  RegexMachine machine(*program_, text, stack);
  const auto match_at = [&](size_t pos) { return machine.match_at(pos); };
  return find_first(text, from, program_->first, match_at, match);
}

bool Regex::is_automaton() const { return program_->dfa.has_value(); }

std::optional<Regex::Runs> Regex::runs() const { return program_->runs; }

bool Regex::split_after(const std::vector<Runs>& runs) {
  return program_->dfa && program_->dfa->split_after(runs);
}

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

}  // namespace lorry::tokenizer
