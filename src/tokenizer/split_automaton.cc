#include "tokenizer/split_automaton.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <tuple>
#include <utility>

#include "tokenizer/regex_dfa.h"
#include "tokenizer/unicode.h"

#ifdef __SSSE3__
#include <tmmintrin.h>
#endif

namespace lorry::tokenizer {
namespace {

constexpr size_t kMaxStates = 2000;
constexpr size_t kMaxRowStates = 32;
constexpr uint32_t kMaxCounted = 8;  // characters of runs that are counted

}  // namespace

/// Explores the states from the fresh one on, then merges those that behave alike.
class SplitAutomaton::Builder {
 public:
  Builder(const RegexDfa& dfa, const SplitAutomaton& classes)
      : dfa_(dfa), classes_(classes), n_classes_(classes.n_classes_) {}

  bool explore() {
    number(State{});
    number(State{.kind = kLostKind});
    for (uint8_t zone = 0; zone < classes_.most_.size(); ++zone) {
      inside_.push_back(number(State{.zone = zone}));
    }
    for (size_t s = 0; s < states_.size(); ++s) {
      if (states_.size() > kMaxStates) return false;
      for (uint32_t c = 0; c < n_classes_; ++c) {
        Step step{.state = states_[s]};
        const bool known = c + 1 == n_classes_ ? feed(step, end(), 0) : take(step, c);
        if (!known) return false;
        cells_.push_back({number(std::move(step.state)), step.begins});
      }
    }
    return true;
  }

  /// Moore's algorithm: parts of states that no text tells apart.
  void merge() {
    std::vector<uint16_t> part(states_.size(), 0);
    part[kLost] = 1;  // to be left by other means
    for (size_t parts = 2;;) {
      std::map<std::vector<uint32_t>, uint16_t> known;
      std::vector<uint16_t> finer(states_.size());
      for (size_t s = 0; s < states_.size(); ++s) {
        std::vector<uint32_t> looks{part[s]};
        for (size_t c = 0; c < n_classes_; ++c) {
          const Cell& cell = cells_[s * n_classes_ + c];
          looks.push_back(uint32_t{part[cell.next]} << 8 | cell.begins);
        }
        finer[s] =
            known.try_emplace(std::move(looks), static_cast<uint16_t>(known.size())).first->second;
      }
      part = std::move(finer);
      if (known.size() == parts) break;
      parts = known.size();
    }
    keep_parts(part);
  }

  std::vector<Cell> take_cells() { return std::move(cells_); }
  std::vector<uint16_t> take_inside() { return std::move(inside_); }

 private:
  static constexpr uint8_t kNoZone = UINT8_MAX;
  enum Kind : uint8_t { kFreshKind, kLostKind, kGapKind, kMatchKind };

  struct State {
    Kind kind = kFreshKind;
    bool may_end = false;         // the match may have ended somewhere
    bool behind_gap = false;      // what may become a match is behind what is in none
    uint32_t row = 0;             // of the DFA
    std::vector<uint8_t> behind;  // characters behind the last end, without one all of them
    uint8_t zone = kNoZone;       // of the last character
    uint8_t count = 0;            // characters of its run so far, where that has a limit
    bool operator<(const State& o) const {
      return std::tie(kind, may_end, behind_gap, row, behind, zone, count) <
             std::tie(o.kind, o.may_end, o.behind_gap, o.row, o.behind, o.zone, o.count);
    }
  };
  struct Step {
    State state;
    uint8_t begins = 0;

    /// Something begins so many characters back; false if that is too far.
    bool mark(size_t back) {
      begins |= static_cast<uint8_t>(1u << back);
      return back <= kMaxBack;
    }
  };

  uint16_t number(State state) {
    const auto [at, added] = known_.try_emplace(state, static_cast<uint16_t>(states_.size()));
    if (added) states_.push_back(std::move(state));
    return at->second;
  }

  uint32_t end() const { return dfa_.end_class_; }

  /// A character of one of the automaton's classes follows, in this zone or another.
  bool take(Step& step, uint32_t c) const {
    if (step.state.kind == kLostKind) return true;
    const uint8_t zone = classes_.zone_[c];
    const uint32_t most = classes_.most_[zone];
    const bool has_limit = most != Regex::kUnbounded;
    uint8_t count = step.state.count;
    if (step.state.zone != zone || (has_limit && count == most)) {
      if (step.state.kind != kFreshKind && !feed(step, end(), 0)) return false;
      if (step.state.kind == kLostKind) return false;
      step.state = State{};
      count = 0;
    }
    if (!feed(step, classes_.dfa_class_[c], 0)) return false;
    // What is lost is found again from the last beginning on, which knows no count.
    if (step.state.kind == kLostKind) return !has_limit;
    step.state.zone = zone;
    step.state.count = has_limit ? static_cast<uint8_t>(count + 1) : 0;
    return true;
  }

  /// A character of the DFA's class `c` follows, or the end; it stands `back` characters before the
  /// one that the transition is for. False if what then begins cannot be told.
  bool feed(Step& step, uint32_t c, size_t back) const {
    State& state = step.state;
    if (state.kind == kLostKind) return true;
    if (state.kind != kMatchKind) return c == end() || begin(step, c, back);
    const uint32_t entry = dfa_.next_[state.row + c];
    if ((entry & RegexDfa::kMatchFlag) && !end_match(step, back + state.behind.size()))
      return false;
    const uint32_t row = entry >> RegexDfa::kRowShift;
    if (row == 0) return give_up(step, c, back);
    return c != end() && go_on(step, row, c, back);
  }

  bool begin(Step& step, uint32_t c, size_t back) const {
    const bool in_gap = step.state.kind == kGapKind;
    const uint32_t row = dfa_.next_[dfa_.start_ + c] >> RegexDfa::kRowShift;
    step.state = State{.kind = row == 0 ? kGapKind : kMatchKind, .behind_gap = row != 0 && in_gap};
    return row == 0 ? in_gap || step.mark(back) : go_on(step, row, c, back);
  }

  bool go_on(Step& step, uint32_t row, uint32_t c, size_t back) const {
    State& state = step.state;
    state.row = row;
    state.behind.push_back(static_cast<uint8_t>(c));
    if (dfa_.may_end_[row >> dfa_.shift_]) return end_match(step, back + state.behind.size() - 1);
    if (state.behind.size() <= kMaxBack) return true;
    const bool may_end = state.may_end;
    state = State{.kind = kLostKind};
    return may_end;
  }

  /// The match may end here; if this is its first end, it now is one, and begins `begin` back.
  static bool end_match(Step& step, size_t begin) {
    State& state = step.state;
    const bool known = std::exchange(state.may_end, true);
    state.behind_gap = false;
    state.behind.clear();
    return known || step.mark(begin);
  }

  /// The DFA has died. The match has ended, and what is behind it begins the next; or there was
  /// none, and the first of its characters is in none.
  bool give_up(Step& step, uint32_t c, size_t back) const {
    const State was = std::exchange(step.state, State{});
    const size_t n = was.behind.size();
    if (!was.may_end) {
      step.state.kind = kGapKind;
      if (!was.behind_gap && !step.mark(back + n)) return false;
    }
    for (size_t i = was.may_end ? 0 : 1; i < n; ++i) {
      if (!feed(step, was.behind[i], back + n - i)) return false;
    }
    return feed(step, c, back);
  }

  /// One state a part, in order of their first; fresh and lost stay the first two.
  void keep_parts(const std::vector<uint16_t>& part) {
    std::vector<uint16_t> first_of, number_of(states_.size(), UINT16_MAX);
    for (size_t s = 0; s < states_.size(); ++s) {
      if (number_of[part[s]] != UINT16_MAX) continue;
      number_of[part[s]] = static_cast<uint16_t>(first_of.size());
      first_of.push_back(static_cast<uint16_t>(s));
    }
    std::vector<Cell> cells;
    for (const uint16_t s : first_of) {
      for (size_t c = 0; c < n_classes_; ++c) {
        const Cell& cell = cells_[s * n_classes_ + c];
        cells.push_back({number_of[part[cell.next]], cell.begins});
      }
    }
    cells_ = std::move(cells);
    for (uint16_t& state : inside_) state = number_of[part[state]];
  }

  const RegexDfa& dfa_;
  const SplitAutomaton& classes_;
  const size_t n_classes_;
  std::vector<uint16_t> inside_;
  std::map<State, uint16_t> known_;
  std::vector<State> states_;
  std::vector<Cell> cells_;
};

std::optional<SplitAutomaton> SplitAutomaton::build(const RegexDfa& dfa,
                                                    const std::vector<Regex::Runs>& runs) {
  SplitAutomaton out;
  if (!out.make_classes(dfa, runs)) return std::nullopt;
  Builder builder(dfa, out);
  if (!builder.explore()) return std::nullopt;
  builder.merge();
  out.cells_ = builder.take_cells();
  out.inside_ = builder.take_inside();
  out.make_rows();
  out.make_skipped();
  return out;
}

/// False if the sets have characters in common, or there are too many classes or long runs.
bool SplitAutomaton::make_classes(const RegexDfa& dfa, const std::vector<Regex::Runs>& runs) {
  constexpr uint32_t kCodePoints = 0x110000, kBlock = 256;
  std::vector<uint8_t> zone_of(kCodePoints, 0);
  most_ = {Regex::kUnbounded};
  for (const Regex::Runs& run : runs) {
    if (run.most != Regex::kUnbounded && run.most > kMaxCounted) return false;
    for (const auto& [first, last] : run.set.ranges()) {
      for (uint32_t code = first; code <= last && code < kCodePoints; ++code) {
        if (zone_of[code] != 0) return false;
        zone_of[code] = static_cast<uint8_t>(most_.size());
      }
    }
    most_.push_back(run.most);
  }
  std::map<std::pair<uint32_t, uint8_t>, uint8_t> known;
  std::map<std::array<uint8_t, kBlock>, uint16_t> blocks;
  for (uint32_t begin = 0; begin < kCodePoints; begin += kBlock) {
    std::array<uint8_t, kBlock> block;
    for (uint32_t i = 0; i < kBlock; ++i) {
      const std::pair both{dfa.class_of(begin + i), zone_of[begin + i]};
      const auto [at, added] = known.try_emplace(both, static_cast<uint8_t>(known.size()));
      if (known.size() == UINT8_MAX) return false;
      if (added) dfa_class_.push_back(static_cast<uint8_t>(both.first));
      if (added) zone_.push_back(both.second);
      block[i] = at->second;
    }
    const auto [at, added] = blocks.try_emplace(block, static_cast<uint16_t>(blocks_.size()));
    if (added) blocks_.push_back(block);
    index_.push_back(at->second);
  }
  n_classes_ = known.size() + 1;
  for (uint32_t byte = 0; byte < 128; ++byte) ascii_[byte] = static_cast<uint8_t>(class_of(byte));
  return true;
}

void SplitAutomaton::make_rows() {
  const size_t states = cells_.size() / n_classes_;
  if (states > kMaxRowStates) return;
  rows_.resize(128);
  for (size_t byte = 0; byte < rows_.size(); ++byte) {
    for (size_t s = 0; s < states; ++s) {
      const Cell& c = cell(s, ascii_[byte]);
      (s < 16 ? rows_[byte].low : rows_[byte].high)[s % 16] =
          static_cast<uint8_t>((c.next & 15) | (c.next & 16) << 3 | c.begins << 4);
    }
  }
}

void SplitAutomaton::make_skipped() {
  constexpr size_t kMany = 96;
  bool any = false;
  for (size_t s = 0; s < cells_.size() / n_classes_; ++s) {
    std::array<uint8_t, 16> bytes{};
    size_t count = 0;
    for (size_t byte = 0; byte < 128; ++byte) {
      const Cell& c = cell(s, ascii_[byte]);
      if (s == kLost || c.next != s || c.begins != 0) continue;
      bytes[byte % 16] |= static_cast<uint8_t>(1u << byte / 16);
      ++count;
    }
    any = any || count >= kMany;
    skipped_.push_back(count >= kMany ? bytes : std::array<uint8_t, 16>{});
  }
  if (!any) skipped_.clear();
}

/// Pieces of a text that lie one behind the other. Beginnings are bits, one a byte.
class SplitAutomaton::Run {
 public:
  Run(const SplitAutomaton& automaton, const RegexDfa& dfa, std::string_view text, size_t begin,
      size_t end)
      : automaton_(automaton),
        dfa_(dfa),
        text_(text),
        bits_(of_thread()),
        first_(begin - kPad),
        last_(end) {
    bits_.assign((end - first_) / 64 + 2, 0);
  }

  /// The next piece.
  void go(size_t begin, size_t end) {
    end_ = end;
    begin_afresh(begin);
    while (at_ < end_) {
      run_ascii();
      if (at_ < end_) step();
      if (state_ == kLost) find_way();
    }
    take(automaton_.cell(state_, automaton_.end_class()), end_);
  }

  void append(std::vector<Regex::Match>& out) const {
    size_t count = 0;
    for (const uint64_t word : bits_) count += static_cast<size_t>(std::popcount(word));
    out.resize(out.size() + count);
    Regex::Match* match = &out.back() + 1 - count;
    size_t begin = first_ + kPad;  // something begins there
    for (size_t w = 1; w < bits_.size(); ++w) {
      for (uint64_t word = bits_[w] & ~uint64_t{w == 1}; word != 0; word &= word - 1) {
        const size_t next = first_ + w * 64 + static_cast<size_t>(std::countr_zero(word));
        *match++ = {begin, next};
        begin = next;
      }
    }
    *match = {begin, last_};
  }

 private:
  static constexpr size_t kPad = 64;  // bits before the first byte's

  static std::vector<uint64_t>& of_thread() {
    thread_local std::vector<uint64_t> bits;
    return bits;
  }

  void mark(size_t at) { bits_[(at - first_) / 64] |= uint64_t{1} << (at - first_) % 64; }

  // Characters before the place are none that a transition from the fresh state could mean.
  void begin_afresh(size_t at) {
    at_ = at;
    one_back_ = at - 1;
    two_back_ = at - 2;
    state_ = kFresh;
  }

  void take(const Cell& cell, size_t at) {
    if (cell.begins & kHere) mark(at);
    if (cell.begins & kOneBack) mark(one_back_);
    if (cell.begins & kTwoBack) mark(two_back_);
    state_ = cell.next;
  }

  /// One character of whatever kind.
  void step() {
    const auto byte = static_cast<uint8_t>(text_[at_]);
    size_t size = 1;
    uint32_t c = automaton_.ascii_[byte & 0x7F];
    if (byte >= 0x80) {
      const Decoded d = decode_utf8(text_.data() + at_);
      c = automaton_.class_of(d.code_point);
      size = d.size;
    }
    take(automaton_.cell(state_, c), at_);
    two_back_ = one_back_;
    one_back_ = at_;
    at_ += size;
  }

  /// What began last is matched by the DFA, and the next begins behind it.
  void find_way() {
    size_t w = (at_ - 1 - first_) / 64;
    while (bits_[w] == 0) --w;
    const size_t begin = first_ + w * 64 + 63 - static_cast<size_t>(std::countl_zero(bits_[w]));
    size_t end = dfa_.match(text_.substr(0, end_), begin);
    const uint8_t zone = zone_at(begin);
    if (automaton_.most_.size() > 1) {
      // The match ends with the run at the latest, and what is behind that it does not see.
      size_t limit = begin;
      while (limit <= end && limit < end_ && zone_at(limit) == zone)
        limit += utf8_size(text_[limit]);
      if (limit <= end) end = dfa_.match(text_.substr(0, limit), begin);
    }
    begin_afresh(end);
    state_ = automaton_.inside_[zone];
  }

  uint8_t zone_at(size_t at) const {
    return automaton_.zone_[automaton_.class_of(decode_utf8(text_.data() + at).code_point)];
  }

#ifdef __SSSE3__
  /// 16 bytes at a time, as long as they are ASCII.
  void run_ascii() {
    if (automaton_.rows_.empty() || at_ - one_back_ != 1 || at_ - two_back_ != kMaxBack) return;
    const size_t start = at_;
    __m128i state = _mm_set1_epi8(static_cast<char>((state_ & 15) | (state_ & 16) << 3));
    while (at_ < end_) {
      std::array<uint8_t, kStride> copy;
      const auto* bytes = reinterpret_cast<const uint8_t*>(text_.data()) + at_;
      const size_t left = end_ - at_;
      if (text_.size() - at_ < kStride) {
        std::memcpy(copy.data(), bytes, left);
        bytes = copy.data();
      }
      uint32_t stop = static_cast<uint32_t>(_mm_movemask_epi8(load(bytes)));
      if (left < kStride) stop |= 1u << left;
      if (stop == 0 && may_skip(bytes, state)) {
        at_ += kStride;
      } else if (stop == 0) {
        look_up(bytes, kStride, state);
        if (number_of(state) == kLost) break;
      } else {
        const auto n = static_cast<size_t>(std::countr_zero(stop));
        if (n > 0) look_up(bytes, n, state);
        break;
      }
    }
    if (at_ == start) return;
    state_ = number_of(state);
    one_back_ = at_ - 1;
    two_back_ = at_ - 2;
  }

  /// Whether kStride bytes leave the state as it is and begin nothing.
  bool may_skip(const uint8_t* bytes, __m128i state) const {
    if (automaton_.skipped_.empty()) return false;
    const __m128i nibble = _mm_set1_epi8(15);
    const __m128i bits = _mm_setr_epi8(1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m128i high = _mm_and_si128(_mm_srli_epi16(load(bytes), 4), nibble);
    const __m128i by_low = _mm_shuffle_epi8(load(automaton_.skipped_[number_of(state)].data()),
                                            _mm_and_si128(load(bytes), nibble));
    const __m128i in = _mm_and_si128(by_low, _mm_shuffle_epi8(bits, high));
    return _mm_movemask_epi8(_mm_cmpeq_epi8(in, _mm_setzero_si128())) == 0;
  }

  /// The next `n` bytes.
  void look_up(const uint8_t* bytes, size_t n, __m128i& state) {
    __m128i trace = _mm_setzero_si128();
    if (n == kStride) {
#pragma GCC unroll 16
      for (size_t i = 0; i < kStride; ++i) look_up_byte(bytes, i, state, trace);
    } else {
      for (size_t i = 0; i < n; ++i) look_up_byte(bytes, i, state, trace);
    }
    const auto at_bit = [&](int bit) {
      return static_cast<uint32_t>(_mm_movemask_epi8(_mm_slli_epi16(trace, 7 - bit)));
    };
    mark_many(at_ - kMaxBack, at_bit(4) << 2 | at_bit(5) << 1 | at_bit(6));
    at_ += n;
  }

  [[gnu::always_inline]] void look_up_byte(const uint8_t* bytes, size_t i, __m128i& state,
                                           __m128i& trace) const {
    const Row& row = automaton_.rows_.data()[bytes[i]];
    const __m128i other_half = _mm_xor_si128(state, _mm_set1_epi8(static_cast<char>(0x80)));
    state = _mm_or_si128(_mm_shuffle_epi8(load(row.low.data()), state),
                         _mm_shuffle_epi8(load(row.high.data()), other_half));
    trace = _mm_or_si128(trace, _mm_and_si128(state, load(&kOnly[kStride - i])));
  }

  static uint16_t number_of(__m128i state) {
    const auto byte = static_cast<uint32_t>(_mm_cvtsi128_si32(state));
    return static_cast<uint16_t>((byte & 15) | (byte >> 3 & 16));
  }

  static __m128i load(const uint8_t* bytes) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
  }

  /// From byte `at` on.
  void mark_many(size_t at, uint32_t which) {
    auto* const bytes = reinterpret_cast<char*>(bits_.data()) + (at - first_) / 8;
    uint32_t word;
    std::memcpy(&word, bytes, sizeof word);
    word |= which << (at - first_) % 8;
    std::memcpy(bytes, &word, sizeof word);
  }

  /// From 16 - i on: 0xFF for byte i alone.
  static constexpr std::array<uint8_t, 32> kOnly = [] {
    std::array<uint8_t, 32> bytes{};
    bytes[16] = 0xFF;
    return bytes;
  }();
#else
  void run_ascii() {}
#endif

  static constexpr size_t kStride = 16;

  const SplitAutomaton& automaton_;
  const RegexDfa& dfa_;
  const std::string_view text_;
  std::vector<uint64_t>& bits_;
  const size_t first_, last_;  // the bytes of the first bit, which may lie before the text; the end
  size_t end_ = 0;             // of the piece
  uint16_t state_ = kFresh;
  size_t at_ = 0;
  size_t one_back_ = 0, two_back_ = 0;  // where the last two characters begin
};

void SplitAutomaton::split(const RegexDfa& dfa, std::string_view text,
                           std::span<const Regex::Match> pieces,
                           std::vector<Regex::Match>& out) const {
  for (size_t i = 0; i < pieces.size();) {
    size_t end = i + 1;  // of the pieces without a gap
    while (end < pieces.size() && pieces[end].begin == pieces[end - 1].end) ++end;
    Run run(*this, dfa, text, pieces[i].begin, pieces[end - 1].end);
    for (; i < end; ++i) run.go(pieces[i].begin, pieces[i].end);
    run.append(out);
  }
}

}  // namespace lorry::tokenizer
