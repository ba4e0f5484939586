#include "tokenizer/regex_dfa.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <set>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace lorry::tokenizer {
namespace {

using regex::Greed;
using regex::Kind;
using regex::kUnbounded;
using regex::Node;

constexpr size_t kMaxInstructions = 4000;
constexpr size_t kMaxStates = 2000;
constexpr size_t kMaxSets = 64;

/// The pattern as a non-deterministic program; threads are tried in the order of preference.
struct Instruction {
  enum Op { kChar, kSplit, kLook, kMatch } op;
  uint32_t set = 0;              // kChar, kLook
  bool negative = false;         // kLook
  uint32_t next = 0, other = 0;  // kSplit prefers next
};

/// A tree into instructions, from its end to its beginning: each node knows what follows it.
class Program {
 public:
  bool build(const Node& root) {
    add({.op = Instruction::kMatch});
    const auto start = emit(root, 0);
    if (!start) return false;
    start_ = *start;
    return true;
  }
  uint32_t start() const { return start_; }
  const Instruction& at(uint32_t i) const { return code_[i]; }
  const std::vector<CodePointSet>& sets() const { return sets_; }

 private:
  using Entry = std::optional<uint32_t>;

  Entry add(Instruction i) {
    if (code_.size() == kMaxInstructions) return std::nullopt;
    code_.push_back(i);
    return static_cast<uint32_t>(code_.size() - 1);
  }

  Entry add_set(const CodePointSet& set) {
    for (size_t i = 0; i < sets_.size(); ++i) {
      if (sets_[i].ranges() == set.ranges()) return static_cast<uint32_t>(i);
    }
    if (sets_.size() == kMaxSets) return std::nullopt;
    sets_.push_back(set);
    return static_cast<uint32_t>(sets_.size() - 1);
  }

  Entry emit(const Node& node, uint32_t then) {
    switch (node.kind) {
      case Kind::kEmpty:
        return then;
      case Kind::kSet: {
        const Entry set = add_set(node.set);
        return set ? add({.op = Instruction::kChar, .set = *set, .next = then}) : std::nullopt;
      }
      case Kind::kSequence: {
        Entry entry = then;
        for (auto child = node.children.rbegin(); entry && child != node.children.rend(); ++child)
          entry = emit(**child, *entry);
        return entry;
      }
      case Kind::kAlternation: {
        Entry entry = emit(*node.children.back(), then);
        for (size_t i = node.children.size() - 1; entry && i-- > 0;) {
          const Entry first = emit(*node.children[i], then);
          entry = first ? add({.op = Instruction::kSplit, .next = *first, .other = *entry}) : first;
        }
        return entry;
      }
      case Kind::kRepeat:
        return emit_repeat(node, then);
      case Kind::kLookAhead:
        return emit_look(node, then);
      default:
        return std::nullopt;
    }
  }

  Entry emit_look(const Node& node, uint32_t then) {
    const Node* ahead = node.children[0].get();
    const auto wraps_one = [](const Node& n) {
      return (n.kind == Kind::kSequence || n.kind == Kind::kAlternation) && n.children.size() == 1;
    };
    while (wraps_one(*ahead)) ahead = ahead->children[0].get();
    if (ahead->kind != Kind::kSet) return std::nullopt;
    const Entry set = add_set(ahead->set);
    if (!set) return set;
    return add({.op = Instruction::kLook, .set = *set, .negative = node.negative, .next = then});
  }

  Entry split(Greed greed, uint32_t body, uint32_t past) {
    const bool lazy = greed == Greed::kLazy;
    return add(
        {.op = Instruction::kSplit, .next = lazy ? past : body, .other = lazy ? body : past});
  }

  Entry emit_repeat(const Node& node, uint32_t then) {
    const Node& body = *node.children[0];
    if (node.greed == Greed::kPossessive || may_be_empty(body)) return std::nullopt;
    Entry entry = then;
    if (node.max == kUnbounded) {
      const Entry loop = add({.op = Instruction::kSplit});
      const Entry start = loop ? emit(body, *loop) : std::nullopt;
      if (!start) return std::nullopt;
      const bool lazy = node.greed == Greed::kLazy;
      code_[*loop].next = lazy ? then : *start;
      code_[*loop].other = lazy ? *start : then;
      entry = loop;
    } else {
      for (uint32_t i = node.min; entry && i < node.max; ++i) {
        const Entry start = emit(body, *entry);
        entry = start ? split(node.greed, *start, then) : std::nullopt;
      }
    }
    for (uint32_t i = 0; entry && i < node.min; ++i) entry = emit(body, *entry);
    return entry;
  }

  static bool may_be_empty(const Node& node) {
    switch (node.kind) {
      case Kind::kSet:
        return false;
      case Kind::kSequence:
        return std::all_of(node.children.begin(), node.children.end(),
                           [](const auto& child) { return may_be_empty(*child); });
      case Kind::kAlternation:
        return std::any_of(node.children.begin(), node.children.end(),
                           [](const auto& child) { return may_be_empty(*child); });
      case Kind::kRepeat:
        return node.min == 0 || may_be_empty(*node.children[0]);
      default:
        return true;
    }
  }

  std::vector<Instruction> code_;
  std::vector<CodePointSet> sets_;
  uint32_t start_ = 0;
};

/// Code points that no set tells apart are of one class; a class's bits say which sets hold it.
struct Classes {
  std::vector<uint64_t> sets;  // by class; the last one is the end of the text
  std::vector<uint16_t> index;
  std::vector<std::array<uint8_t, 256>> blocks;

  bool build(const std::vector<CodePointSet>& sources) {
    std::map<uint32_t, uint64_t> changes{{0, 0}};  // where some set begins or ends
    for (size_t s = 0; s < sources.size(); ++s) {
      for (const auto& [first, last] : sources[s].ranges()) {
        changes[first] ^= uint64_t{1} << s;
        changes[last + 1] ^= uint64_t{1} << s;
      }
    }
    std::vector<uint8_t> by_code_point(kMaxCodePoint + 1);
    std::map<uint64_t, uint8_t> ids;
    uint64_t bits = 0;
    for (auto change = changes.begin(); change != changes.end(); ++change) {
      bits ^= change->second;
      if (change->first > kMaxCodePoint) break;
      const auto next = std::next(change);
      const uint32_t end =
          next == changes.end() ? kMaxCodePoint + 1 : std::min(next->first, kMaxCodePoint + 1);
      const auto [id, added] = ids.try_emplace(bits, static_cast<uint8_t>(sets.size()));
      if (added) sets.push_back(bits);
      if (sets.size() > 250) return false;
      std::memset(&by_code_point[change->first], id->second, end - change->first);
    }
    sets.push_back(0);
    std::map<std::array<uint8_t, 256>, uint16_t> known;
    for (size_t block = 0; block < by_code_point.size() / 256; ++block) {
      std::array<uint8_t, 256> bytes;
      std::memcpy(bytes.data(), &by_code_point[block * 256], 256);
      const auto [id, added] = known.try_emplace(bytes, static_cast<uint16_t>(blocks.size()));
      if (added) blocks.push_back(bytes);
      index.push_back(id->second);
    }
    return true;
  }
};

/// Threads that live at a position, most preferred first. Look-aheads wait for the next character.
using Threads = std::vector<uint32_t>;

class Determinizer {
 public:
  Determinizer(const Program& program, const Classes& classes)
      : program_(program), classes_(classes) {}

  struct Step {
    Threads threads;
    bool is_match = false;
  };

  Threads start() const {
    Threads out;
    std::set<uint32_t> seen;
    reach(program_.start(), seen, out);
    return out;
  }

  /// What `threads` become when a character of class `c` (or the end) follows.
  Step step(const Threads& threads, uint32_t c) const {
    const bool at_end = c + 1 == classes_.sets.size();
    Step out;
    std::set<uint32_t> done, seen;
    Threads waiting(threads.rbegin(), threads.rend());
    while (!waiting.empty()) {
      const uint32_t thread = waiting.back();
      waiting.pop_back();
      if (!done.insert(thread).second) continue;
      const Instruction& in = program_.at(thread);
      const bool holds = !at_end && (classes_.sets[c] >> in.set & 1) != 0;
      if (in.op == Instruction::kMatch) {
        out.is_match = true;
        break;  // less preferred threads do not count
      }
      if (in.op == Instruction::kChar && holds) {
        reach(in.next, seen, out.threads);
        if (ends_in_match(out.threads)) break;
      } else if (in.op == Instruction::kLook && holds != in.negative) {
        Threads more;
        std::set<uint32_t> fresh;
        reach(in.next, fresh, more);
        waiting.insert(waiting.end(), more.rbegin(), more.rend());
      }
    }
    return out;
  }

  bool ends_in_match(const Threads& threads) const {
    return !threads.empty() && program_.at(threads.back()).op == Instruction::kMatch;
  }

 private:
  /// Appends the threads at `from`, through splits, in order of preference.
  void reach(uint32_t from, std::set<uint32_t>& seen, Threads& out) const {
    Threads waiting{from};
    while (!waiting.empty()) {
      const uint32_t i = waiting.back();
      waiting.pop_back();
      if (!seen.insert(i).second) continue;
      const Instruction& in = program_.at(i);
      if (in.op == Instruction::kSplit) {
        waiting.push_back(in.other);
        waiting.push_back(in.next);
      } else {
        out.push_back(i);
        if (in.op == Instruction::kMatch) return;
      }
    }
  }

  const Program& program_;
  const Classes& classes_;
};

}  // namespace

std::optional<RegexDfa> RegexDfa::build(const Node& root) {
  Program program;
  Classes classes;
  if (!program.build(root) || !classes.build(program.sets())) return std::nullopt;
  RegexDfa dfa;
  const auto n_classes = static_cast<uint32_t>(classes.sets.size());
  dfa.end_class_ = n_classes - 1;
  dfa.shift_ = static_cast<uint32_t>(std::bit_width(n_classes - 1));

  const Determinizer determinizer(program, classes);
  std::map<Threads, uint32_t> known{{Threads{}, 0}};
  std::vector<Threads> states{Threads{}};  // no threads: the dead state
  const auto row_of = [&](Threads threads) {
    const auto [at, added] =
        known.try_emplace(std::move(threads), static_cast<uint32_t>(states.size()));
    if (added) states.push_back(at->first);
    return at->second << dfa.shift_;
  };
  dfa.start_ = row_of(determinizer.start());
  for (size_t s = 0; s < states.size(); ++s) {
    if (states.size() > kMaxStates) return std::nullopt;
    dfa.next_.resize((s + 1) << dfa.shift_);
    dfa.may_end_.push_back(determinizer.ends_in_match(states[s]));
    for (uint32_t c = 0; c < n_classes; ++c) {
      auto step = determinizer.step(Threads(states[s]), c);
      if (s << dfa.shift_ == dfa.start_ && step.is_match) return std::nullopt;  // an empty match
      const uint32_t next = row_of(std::move(step.threads)) << kRowShift;
      dfa.next_[(s << dfa.shift_) + c] = next | (step.is_match ? kMatchFlag : 0);
    }
  }

  dfa.index_ = std::move(classes.index);
  dfa.blocks_ = std::move(classes.blocks);
  for (uint32_t byte = 0; byte < 128; ++byte)
    dfa.ascii_[byte] = static_cast<uint8_t>(dfa.class_of(byte));
  dfa.set_flags();
  dfa.splitter_ = SplitAutomaton::build(dfa, {});
  return dfa;
}

bool RegexDfa::split_after(const std::vector<Regex::Runs>& runs) {
  auto splitter = SplitAutomaton::build(*this, runs);
  if (!splitter || !splitter->is_fast()) return false;
  splitter_ = std::move(splitter);
  return true;
}

std::optional<RegexDfa::Loop> RegexDfa::loop_of(uint32_t row) const {
  Loop loop;
  uint8_t first = 0;
  size_t ranges = 0;
  bool inside = false;
  for (uint32_t byte = 0; byte < 128; ++byte) {
    const uint32_t entry = next_[row + ascii_[byte]];
    if (entry >> kRowShift != row) {
      inside = false;
      continue;
    }
    const bool is_match = (entry & kMatchFlag) != 0;
    if (ranges == 0) loop.is_match = is_match;
    if (loop.is_match != is_match) return std::nullopt;
    if (!inside) {
      if (ranges == loop.first.size()) return std::nullopt;
      first = static_cast<uint8_t>(byte);
      loop.first[ranges++].fill(first);
    }
    loop.span[ranges - 1].fill(static_cast<uint8_t>(byte - first));
    inside = true;
  }
  if (ranges == 0) return std::nullopt;
  if (ranges == 1) loop.first[1] = loop.first[0], loop.span[1] = loop.span[0];
  return loop;
}

bool RegexDfa::is_final(uint32_t row) const {
  return std::all_of(next_.begin() + row, next_.begin() + row + end_class_ + 1,
                     [](uint32_t entry) { return entry == kMatchFlag; });
}

void RegexDfa::set_flags() {
  const size_t states = next_.size() >> shift_;
  loops_.resize(states);
  std::vector<uint32_t> flags(states);
  for (uint32_t s = 1; s < states; ++s) {
    const auto loop = loop_of(s << shift_);
    if (loop) loops_[s] = *loop;
    flags[s] = (loop ? kLoopFlag : 0) | (is_final(s << shift_) ? kFinalFlag : 0);
  }
  for (uint32_t& entry : next_) entry |= flags[entry >> kRowShift >> shift_];
}

#ifdef __SSE2__
namespace {

using Bytes = std::array<uint8_t, 16>;

__m128i load(const uint8_t* bytes) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
}

/// 0xFF where a byte is at least `first` and at most `first + span`.
__m128i in_range(__m128i bytes, const Bytes& first, const Bytes& span) {
  const __m128i from = _mm_sub_epi8(bytes, load(first.data()));
  return _mm_cmpeq_epi8(_mm_min_epu8(from, load(span.data())), from);
}

}  // namespace
#endif

[[gnu::always_inline]] inline size_t RegexDfa::match_from(std::string_view text,
                                                          size_t begin) const {
  const auto* const bytes = reinterpret_cast<const uint8_t*>(text.data());
  const size_t size = text.size();
  size_t found = kNoMatch, at = begin;
  for (uint32_t row = start_;;) {
    uint32_t entry;
    if (at == size) return next_[row + end_class_] & kMatchFlag ? at : found;
    const size_t before = at;
    if (bytes[at] < 0x80) {
      entry = next_[row + ascii_[bytes[at]]];
      ++at;
    } else {
      const Decoded d = decode_utf8(text.data() + at);
      entry = next_[row + class_of(d.code_point)];
      at += d.size;
    }
    if (entry & kMatchFlag) found = before;
    row = entry >> kRowShift;
    if (row == 0) return found;
    if (entry & kFinalFlag) return at;
#ifdef __SSE2__
    if (!(entry & kLoopFlag)) continue;
    const Loop& loop = loops_[row >> shift_];
    const size_t loop_begin = at;
    while (size - at >= 16) {
      const __m128i next = load(bytes + at);
      const __m128i in = _mm_or_si128(in_range(next, loop.first[0], loop.span[0]),
                                      in_range(next, loop.first[1], loop.span[1]));
      const auto mask = static_cast<uint32_t>(_mm_movemask_epi8(in)) ^ 0xFFFF;
      at += mask ? std::countr_zero(mask) : 16;
      if (mask) break;
    }
    if (loop.is_match && at > loop_begin) found = at - 1;
#endif
  }
}

size_t RegexDfa::match(std::string_view text, size_t begin) const {
  return match_from(text, begin);
}

void RegexDfa::split(std::string_view text, std::span<const Regex::Match> pieces,
                     std::vector<Regex::Match>& out) const {
  if (splitter_) return splitter_->split(*this, text, pieces, out);
  for (const Regex::Match& piece : pieces) {
    const std::string_view rest = text.substr(0, piece.end);
    size_t gap = piece.begin;
    for (size_t at = gap; at < piece.end;) {
      const size_t end = match_from(rest, at);
      if (end == kNoMatch) {
        at += utf8_size(text[at]);
        continue;
      }
      if (gap < at) out.push_back({gap, at});
      out.push_back({at, end});
      gap = at = end;
    }
    if (gap < piece.end) out.push_back({gap, piece.end});
  }
}

}  // namespace lorry::tokenizer
