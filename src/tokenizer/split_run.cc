// What a SplitAutomaton does with a text.
#include <algorithm>
#include <bit>
#include <cstring>

#include "tokenizer/regex_dfa.h"
#include "tokenizer/split_automaton.h"
#include "tokenizer/unicode.h"

#ifdef __SSSE3__
#include <tmmintrin.h>
#endif

namespace lorry::tokenizer {

/// Splits adjacent pieces of a text. Where matches and gaps begin is kept as bits, one for each
/// byte of the text.
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

  /// From the lost state: the DFA matches from the last beginning on, and the automaton goes on
  /// from the end of that match.
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
