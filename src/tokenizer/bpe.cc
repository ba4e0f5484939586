#include "tokenizer/bpe.h"

#include <algorithm>
#include <cstdio>
#include <queue>

#include "tokenizer/byte_chars.h"
#include "tokenizer/unicode.h"

namespace lorry::tokenizer {
namespace {

constexpr uint32_t kNoMerge = MergeTable::kNone;
constexpr size_t kMergeBlock = 256;
constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581, as vocabularies write a space
constexpr int32_t kGone = -1;  // the id of a symbol that was merged into the one before

}  // namespace

Result<std::unique_ptr<Bpe>> Bpe::create(TokenMap vocab, const std::vector<Merge>& merges,
                                         BpeOptions options, bool byte_level) {
  std::unique_ptr<Bpe> bpe(new Bpe(std::move(vocab)));
  bpe->options_ = std::move(options);
  bpe->byte_level_ = byte_level;
  if (!bpe->options_.unk_token.empty()) {
    const auto id = bpe->vocab().find(bpe->options_.unk_token);
    bpe->has_unk_ = id.has_value();
    bpe->unk_id_ = id.value_or(0);
  }
  LORRY_TRY(bpe->add_merges(merges));
  LORRY_TRY(bpe->prepare_bytes());
  return bpe;
}

Result<> Bpe::add_merges(const std::vector<Merge>& merges) {
  if (merges.size() >= MergeTable::kNone) {
    return unsupported("tokenizer.json: more than " + std::to_string(MergeTable::kNone) +
                       " merges");
  }
  merges_.reserve(merges.size());
  cuts_ = !byte_level_ && !options_.ignore_merges && options_.subword_prefix.empty() &&
          options_.word_suffix.empty() && vocab().find(kSpace).has_value();
  for (const auto& [left, right] : merges)
    cuts_ = cuts_ && (!right.starts_with(kSpace) || left.ends_with(kSpace));
  for (size_t done = 0; done < merges.size(); done += kMergeBlock) {
    const auto rest = std::span(merges).subspan(done);
    LORRY_TRY(add_merges(rest.first(std::min(kMergeBlock, rest.size())), done));
  }
  return {};
}

/// Some of them, the first of which has rank `first`, so that their tokens are looked up together.
Result<> Bpe::add_merges(std::span<const Merge> merges, size_t first) {
  const size_t prefix = options_.subword_prefix.size(), n = merges.size();
  std::string joined;
  std::vector<size_t> ends;
  for (const auto& [left, right] : merges) {
    if (right.size() < prefix) {
      return invalid_input("tokenizer.json: merge " + std::to_string(first + ends.size()) +
                           " lacks the continuing_subword_prefix");
    }
    joined += left;
    joined += right.substr(prefix);
    ends.push_back(joined.size());
  }
  std::vector<std::string_view> tokens(3 * n);  // lefts, rights, what they make
  for (size_t i = 0; i < n; ++i) {
    const size_t begin = i == 0 ? 0 : ends[i - 1];
    tokens[i] = merges[i].first;
    tokens[n + i] = merges[i].second;
    tokens[2 * n + i] = std::string_view(joined).substr(begin, ends[i] - begin);
  }
  std::vector<int32_t> ids(3 * n);
  vocab().find(tokens, ids.data());
  for (size_t i = 0; i < 3 * n; ++i) {
    if (ids[i] != TokenMap::kNone && ids[i] < MergeTable::kMaxId) continue;
    const std::string merge = "tokenizer.json: merge " + std::to_string(first + i % n);
    if (ids[i] == TokenMap::kNone) {
      return invalid_input(merge + (i < 2 * n ? " names '" : " makes '") + std::string(tokens[i]) +
                           "', which is not in the vocabulary");
    }
    return unsupported(merge + " has an id above " + std::to_string(MergeTable::kMaxId - 1));
  }
  for (size_t i = 0; i < n; ++i) merges_.prefetch(ids[i], ids[n + i]);
  for (size_t i = 0; i < n; ++i) merges_.add(ids[i], ids[n + i], ids[2 * n + i]);
  return {};
}

Result<> Bpe::prepare_bytes() {
  has_fallback_ = options_.byte_fallback;
  // A byte that the vocabulary lacks is spelled with a character of up to two bytes.
  if (byte_level_ && has_fallback_) tokens_per_byte_ = 2;
  for (int b = 0; b < 256; ++b) {
    std::string token;
    append_utf8(token, byte_to_char(static_cast<uint8_t>(b)));
    byte_ids_[b] = vocab().find(token).value_or(-1);
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    fallback_ids_[b] = vocab().find(name).value_or(-1);
  }
  plain_bytes_ = byte_level_ && options_.subword_prefix.empty() && options_.word_suffix.empty() &&
                 *std::min_element(byte_ids_.begin(), byte_ids_.end()) >= 0;
  if (byte_level_) {
    byte_ranks_.assign(256 * 256, kNoMerge);
    for (size_t i = 0; i < byte_ranks_.size(); ++i) {
      const int32_t left = byte_ids_[i >> 8], right = byte_ids_[i & 255];
      if (left >= 0 && right >= 0) byte_ranks_[i] = merges_.rank(left, right);
    }
  }
  if (plain_bytes_) measure_tokens();
  if (!options_.ignore_merges) return {};
  words_.reserve(vocab().size());
  vocab().for_each([&](std::string_view token, int32_t id) {
    if (!byte_level_) {
      words_.insert(token, id);
    } else if (const auto bytes = chars_to_bytes(token)) {
      words_.insert(*bytes, id);
    }
  });
  return {};
}

/// A byte is a character in the vocabulary. Where one id has tokens of several sizes, it tells
/// none.
void Bpe::measure_tokens() {
  bool one_size = true;
  vocab().for_each([&](std::string_view token, int32_t id) {
    const auto at = static_cast<size_t>(id);
    if (at >= token_sizes_.size()) token_sizes_.resize(std::max(at + 1, vocab().size()));
    const auto size = static_cast<uint32_t>(
        std::count_if(token.begin(), token.end(), [](char c) { return !is_utf8_continuation(c); }));
    one_size = one_size && (token_sizes_[at] == 0 || token_sizes_[at] == size);
    token_sizes_[at] = size;
  });
  if (!one_size) token_sizes_.clear();
}

void Bpe::encode(std::string_view word, std::vector<Symbol>& symbols) const {
  if (word.empty()) return;
  if (options_.ignore_merges) {
    if (const auto id = words_.find(word)) {
      symbols.push_back({*id, static_cast<uint32_t>(word.size())});
      return;
    }
  }
  const bool one_a_byte = byte_level_ && split_bytes(word, symbols);
  if (!byte_level_) split_chars(word, symbols);
  if (symbols.size() > kScanLimit) return merge_long(symbols);
  if (symbols.size() < 2) return;
  Ranks ranks;
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    ranks[i] =
        one_a_byte
            ? byte_ranks_[static_cast<uint8_t>(word[i]) << 8 | static_cast<uint8_t>(word[i + 1])]
            : merges_.rank(symbols[i].id, symbols[i + 1].id);
  }
  merge_short(symbols, ranks);
}

void Bpe::cut(std::string_view text, std::vector<Regex::Match>& words) const {
  if (!cuts_) return;
  thread_local std::vector<Regex::Match> parts;
  parts.clear();
  for (auto [begin, end] : words) {
    const std::string_view upto = text.substr(0, end);
    for (size_t at = begin; (at = upto.find(kSpace, at + 1)) != upto.npos;) {
      if (upto.substr(begin, at - begin).ends_with(kSpace)) continue;
      parts.push_back({begin, at});
      begin = at;
    }
    parts.push_back({begin, end});
  }
  words.swap(parts);
}

void Bpe::start_lane(std::string_view word, MergeLane& lane) const {
  lane.start(word.size());
  for (size_t i = 0; i < word.size(); ++i) {
    const auto byte = static_cast<uint8_t>(word[i]);
    const uint32_t rank =
        i + 1 < word.size() ? byte_ranks_[byte << 8 | static_cast<uint8_t>(word[i + 1])] : kNoMerge;
    lane.set(i, byte_ids_[byte], rank);
  }
}

void Bpe::encode_new(std::span<NewWord> words) const {
  std::array<MergeLane, kLanes> lanes;
  std::array<NewWord*, kLanes> started;
  size_t n = 0;
  const auto finish = [&] {
    merge(std::span(lanes).first(n));
    for (size_t i = 0; i < n; ++i) started[i]->n = lanes[i].finish(started[i]->ids);
    n = 0;
  };
  if (options_.ignore_merges) take_whole(words);
  for (NewWord& word : words) {
    if (word.n > 0) continue;
    if (!plain_bytes_ || word.bytes.size() > MergeLane::kMaxSymbols) {
      encode_alone(word);
      continue;
    }
    start_lane(word.bytes, lanes[n]);
    started[n++] = &word;
    if (n == kLanes) finish();
  }
  finish();
}

/// Those that are tokens become them.
void Bpe::take_whole(std::span<NewWord> words) const {
  std::array<std::string_view, 32> bytes;
  std::array<int32_t, bytes.size()> ids;
  for (; !words.empty(); words = words.subspan(std::min(bytes.size(), words.size()))) {
    const auto some = words.first(std::min(bytes.size(), words.size()));
    for (size_t i = 0; i < some.size(); ++i) bytes[i] = some[i].bytes;
    words_.find(std::span(bytes).first(some.size()), ids.data());
    for (size_t i = 0; i < some.size(); ++i) {
      if (ids[i] == TokenMap::kNone) continue;
      some[i].ids[0] = ids[i];
      some[i].n = 1;
    }
  }
}

/// A step of each in turn, until none has anything left to merge.
void Bpe::merge(std::span<MergeLane> lanes) const {
  std::array<uint8_t, kLanes> running;
  for (size_t i = 0; i < lanes.size(); ++i) running[i] = static_cast<uint8_t>(i);
  for (size_t left = lanes.size(); left > 0;) {
    for (size_t i = 0; i < left;) {
      if (lanes[running[i]].step(merges_)) {
        ++i;
      } else {
        running[i] = running[--left];
      }
    }
  }
}

void Bpe::add_unknown(uint32_t size, bool& pending, std::vector<Symbol>& symbols) const {
  if (!has_unk_) return;  // dropped, as the peer does
  if (pending && options_.fuse_unk) {
    symbols.back().size += size;
  } else {
    symbols.push_back({unk_id_, size});
  }
  pending = true;
}

bool Bpe::add_fallback(std::string_view piece, std::vector<Symbol>& symbols) const {
  if (!has_fallback_) return false;
  for (const char b : piece) {
    if (fallback_ids_[static_cast<uint8_t>(b)] < 0) return false;
  }
  for (const char b : piece) symbols.push_back({fallback_ids_[static_cast<uint8_t>(b)], 1});
  return true;
}

bool Bpe::split_bytes(std::string_view word, std::vector<Symbol>& symbols) const {
  if (options_.subword_prefix.empty() && options_.word_suffix.empty()) {
    bool known = true;
    symbols.resize(word.size());
    for (size_t i = 0; i < word.size(); ++i) {
      symbols[i] = {byte_ids_[static_cast<uint8_t>(word[i])], 1};
      known &= symbols[i].id >= 0;
    }
    if (known) return true;
  }
  // Rare: a vocabulary without some byte. Spell the word out and count its bytes again.
  symbols.clear();
  const std::string chars = bytes_to_chars(word);
  split_chars(chars, symbols);
  size_t at = 0;
  for (Symbol& s : symbols) {
    uint32_t bytes = 0;
    for (size_t k = 0; k < s.size && at < chars.size(); ++k, ++at) {
      if (!is_utf8_continuation(chars[at])) ++bytes;
    }
    s.size = bytes;
  }
  return false;
}

void Bpe::split_chars(std::string_view word, std::vector<Symbol>& symbols) const {
  bool pending_unknown = false;
  std::string decorated;
  for (size_t i = 0; i < word.size();) {
    const uint32_t size = utf8_size(word[i]);
    std::string_view piece = word.substr(i, size);
    const bool is_first = i == 0, is_last = i + size >= word.size();
    const bool prefixed = !is_first && !options_.subword_prefix.empty();
    if (prefixed || (is_last && !options_.word_suffix.empty())) {
      decorated = prefixed ? options_.subword_prefix : "";
      decorated += piece;
      if (is_last) decorated += options_.word_suffix;
      piece = decorated;
    }
    i += size;
    if (const auto id = vocab().find(piece)) {
      symbols.push_back({*id, size});
      pending_unknown = false;
    } else if (!add_fallback(piece, symbols)) {
      add_unknown(size, pending_unknown, symbols);
    }
  }
}

void Bpe::merge_short(std::vector<Symbol>& symbols, Ranks& keys) const {
  // A rank gets its index below it, so that the least key says both.
  constexpr int kIndexBits = 6;
  constexpr uint32_t kNever = kNoMerge << kIndexBits;
  static_assert(kScanLimit < 1 << kIndexBits);
  std::array<uint8_t, kScanLimit> next, previous;
  const size_t n = symbols.size();
  const auto key = [&](size_t i) {
    return merges_.rank(symbols[i].id, symbols[next[i]].id) << kIndexBits | uint32_t(i);
  };
  for (size_t i = 0; i < n; ++i) {
    next[i] = static_cast<uint8_t>(i + 1);
    previous[i] = static_cast<uint8_t>(i - 1);
    keys[i] = keys[i] << kIndexBits | uint32_t(i);
  }
  keys[n - 1] = kNever;
  for (;;) {
    uint32_t best = kNever;
    for (size_t i = 0; i + 1 < n; ++i) best = std::min(best, keys[i]);
    if (best >= kNever) break;
    const size_t left = best & ((1 << kIndexBits) - 1), right = next[left];
    symbols[left].id = merges_.id(best >> kIndexBits);
    symbols[left].size += symbols[right].size;
    symbols[right].id = kGone;
    keys[right] = kNever;
    next[left] = next[right];
    if (next[left] < n) previous[next[left]] = static_cast<uint8_t>(left);
    keys[left] = next[left] < n ? key(left) : kNever;
    if (left > 0) keys[previous[left]] = key(previous[left]);
  }
  std::erase_if(symbols, [](const Symbol& s) { return s.id == kGone; });
}

void Bpe::merge_long(std::vector<Symbol>& symbols) const {
  constexpr uint32_t kEnd = UINT32_MAX;
  const auto n = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> next(n), previous(n);
  std::vector<uint32_t> ranks(n, kNoMerge);  // of merging a symbol with the next, as they are now
  std::vector<uint64_t> candidates;          // rank << 32 | place; some are of the past
  const auto look_up = [&](uint32_t at) {
    ranks[at] = next[at] == kEnd ? kNoMerge : merges_.rank(symbols[at].id, symbols[next[at]].id);
    return ranks[at] != kNoMerge;
  };
  const auto candidate = [&](uint32_t at) { return uint64_t{ranks[at]} << 32 | at; };
  for (uint32_t i = 0; i < n; ++i) {
    previous[i] = i - 1;  // of the first: kEnd
    next[i] = i + 1 == n ? kEnd : i + 1;
    if (look_up(i)) candidates.push_back(candidate(i));
  }
  std::priority_queue queue(std::greater<uint64_t>{}, std::move(candidates));
  while (!queue.empty()) {
    const auto at = static_cast<uint32_t>(queue.top());
    const auto rank = static_cast<uint32_t>(queue.top() >> 32);
    queue.pop();
    if (ranks[at] != rank) continue;
    const uint32_t right = next[at];
    symbols[at].id = merges_.id(rank);
    symbols[at].size += symbols[right].size;
    symbols[right].id = kGone;
    ranks[right] = kNoMerge;
    next[at] = next[right];
    if (next[at] != kEnd) previous[next[at]] = at;
    if (look_up(at)) queue.push(candidate(at));
    if (const uint32_t left = previous[at]; left != kEnd && look_up(left))
      queue.push(candidate(left));
  }
  std::erase_if(symbols, [](const Symbol& s) { return s.id == kGone; });
}

}  // namespace lorry::tokenizer
