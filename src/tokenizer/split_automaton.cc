#include "tokenizer/split_automaton.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "tokenizer/regex_dfa.h"

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
  constexpr uint32_t kBlock = 256;
  using Zones = std::array<uint8_t, kBlock>;
  std::map<size_t, Zones> zones;  // by code point >> 8, where there are runs
  most_ = {Regex::kUnbounded};
  for (const Regex::Runs& run : runs) {
    if (run.most != Regex::kUnbounded && run.most > kMaxCounted) return false;
    for (const auto& [first, last] : run.set.ranges()) {
      for (uint32_t code = first; code <= last; ++code) {
        uint8_t& zone = zones[code / kBlock][code % kBlock];
        if (zone != 0) return false;
        zone = static_cast<uint8_t>(most_.size());
      }
    }
    most_.push_back(run.most);
  }
  std::map<std::pair<uint8_t, uint8_t>, uint8_t> classes;  // by class of the DFA and zone
  std::map<std::pair<uint16_t, Zones>, uint16_t> known;    // blocks, by that of the DFA and zones
  for (size_t high = 0; high < dfa.index_.size(); ++high) {
    const auto at = zones.find(high);
    const std::pair key{dfa.index_[high], at == zones.end() ? Zones{} : at->second};
    const auto [block, added] = known.try_emplace(key, static_cast<uint16_t>(blocks_.size()));
    index_.push_back(block->second);
    if (!added) continue;
    blocks_.emplace_back();
    for (uint32_t low = 0; low < kBlock; ++low) {
      const std::pair both{dfa.blocks_[key.first][low], key.second[low]};
      const auto [number, is_new] = classes.try_emplace(both, static_cast<uint8_t>(classes.size()));
      if (classes.size() == UINT8_MAX) return false;
      if (is_new) dfa_class_.push_back(both.first);
      if (is_new) zone_.push_back(both.second);
      blocks_.back()[low] = number->second;
    }
  }
  n_classes_ = classes.size() + 1;
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

}  // namespace lorry::tokenizer
