#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <optional>
#include <queue>

#include "text/byte_chars.h"
#include "text/unicode.h"

namespace lorry::text {
namespace {

constexpr size_t kScanLimit = 48;  // longer words go through a heap

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

uint64_t hash_pair(uint64_t key) {
  key *= 0x9E3779B97F4A7C15ull;
  return key ^ key >> 32;
}

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
  const size_t slots = std::bit_ceil(std::max<size_t>(merges.size() * 2, 16));
  merges_.resize(slots);
  merge_mask_ = slots - 1;
  std::string joined;
  uint32_t rank = 0;
  for (const auto& [left, right] : merges) {
    const auto a = vocab().find(left);
    const auto b = vocab().find(right);
    if (!a || !b) {
      return invalid_input("tokenizer.json: merge " + std::to_string(rank) + " names '" +
                           std::string(a ? right : left) + "', which is not in the vocabulary");
    }
    const size_t prefix = options_.subword_prefix.size();
    if (right.size() < prefix) {
      return invalid_input("tokenizer.json: merge " + std::to_string(rank) +
                           " lacks the continuing_subword_prefix");
    }
    joined.assign(left);
    joined += right.substr(prefix);
    const auto id = vocab().find(joined);
    if (!id) {
      return invalid_input("tokenizer.json: merge " + std::to_string(rank) + " makes '" + joined +
                           "', which is not in the vocabulary");
    }
    insert_merge(pair_key(*a, *b), rank++, *id);
  }
  return {};
}

void Bpe::insert_merge(uint64_t pair, uint32_t rank, int32_t id) {
  uint64_t s = hash_pair(pair) & merge_mask_;
  while (merges_[s].pair != UINT64_MAX && merges_[s].pair != pair) s = (s + 1) & merge_mask_;
  merges_[s] = {pair, rank, id};  // of a merge listed twice the last counts
}

const Bpe::MergeSlot* Bpe::find_merge(int32_t left, int32_t right) const {
  const uint64_t pair = pair_key(left, right);
  for (uint64_t s = hash_pair(pair) & merge_mask_;; s = (s + 1) & merge_mask_) {
    if (merges_[s].pair == pair) return &merges_[s];
    if (merges_[s].pair == UINT64_MAX) return nullptr;
  }
}

Result<> Bpe::prepare_bytes() {
  has_fallback_ = options_.byte_fallback;
  for (int b = 0; b < 256; ++b) {
    std::string token;
    append_utf8(token, byte_to_char(static_cast<uint8_t>(b)));
    byte_ids_[b] = vocab().find(token).value_or(-1);
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    fallback_ids_[b] = vocab().find(name).value_or(-1);
  }
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

void Bpe::encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (word.empty()) return;
  if (word.size() == 1 && byte_level_) {
    if (const int32_t id = byte_ids_[static_cast<uint8_t>(word[0])];
        id >= 0 && options_.word_suffix.empty()) {
      ids.push_back(id);
      return;
    }
  }
  WordModel::encode(word, ids);
}

void Bpe::encode(std::string_view word, std::vector<Symbol>& symbols) const {
  if (word.empty()) return;
  if (options_.ignore_merges) {
    if (const auto id = words_.find(word)) {
      symbols.push_back({*id, static_cast<uint32_t>(word.size())});
      return;
    }
  }
  if (byte_level_) {
    split_bytes(word, symbols);
  } else {
    split_chars(word, symbols);
  }
  merge(symbols);
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

void Bpe::split_bytes(std::string_view word, std::vector<Symbol>& symbols) const {
  symbols.reserve(word.size());
  bool plain = options_.subword_prefix.empty() && options_.word_suffix.empty();
  for (size_t i = 0; plain && i < word.size(); ++i) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(word[i])];
    if (id < 0) plain = false;
    symbols.push_back({id, 1});
  }
  if (plain) return;
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

void Bpe::merge(std::vector<Symbol>& symbols) const {
  if (symbols.size() < 2) return;
  if (symbols.size() <= kScanLimit) {
    merge_short(symbols);
  } else {
    merge_long(symbols);
  }
}

void Bpe::merge_short(std::vector<Symbol>& symbols) const {
  std::array<const MergeSlot*, kScanLimit> pairs;  // of symbol i and its right neighbour
  size_t n = symbols.size();
  for (size_t i = 0; i + 1 < n; ++i) pairs[i] = find_merge(symbols[i].id, symbols[i + 1].id);
  for (;;) {
    size_t best = n;
    uint32_t best_rank = UINT32_MAX;
    for (size_t i = 0; i + 1 < n; ++i) {
      if (pairs[i] && pairs[i]->rank < best_rank) best_rank = pairs[i]->rank, best = i;
    }
    if (best == n) break;
    symbols[best].id = pairs[best]->id;
    symbols[best].size += symbols[best + 1].size;
    --n;
    for (size_t i = best + 1; i < n; ++i) symbols[i] = symbols[i + 1];
    for (size_t i = best + 1; i + 1 < n; ++i) pairs[i] = pairs[i + 1];
    if (best > 0) pairs[best - 1] = find_merge(symbols[best - 1].id, symbols[best].id);
    if (best + 1 < n) pairs[best] = find_merge(symbols[best].id, symbols[best + 1].id);
  }
  symbols.resize(n);
}

void Bpe::merge_long(std::vector<Symbol>& symbols) const {
  struct Candidate {
    uint32_t rank;
    uint32_t at;
    int32_t id;
    bool operator>(const Candidate& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
  };
  constexpr uint32_t kNone = UINT32_MAX;
  const auto n = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> next(n), previous(n);
  std::vector<bool> gone(n, false);
  std::vector<Candidate> heap;
  const auto candidate = [&](uint32_t at, uint32_t right) {
    const MergeSlot* m = find_merge(symbols[at].id, symbols[right].id);
    return m ? std::optional(Candidate{m->rank, at, m->id}) : std::nullopt;
  };
  for (uint32_t i = 0; i < n; ++i) {
    previous[i] = i == 0 ? kNone : i - 1;
    next[i] = i + 1 == n ? kNone : i + 1;
    if (i + 1 < n) {
      if (const auto c = candidate(i, i + 1)) heap.push_back(*c);
    }
  }
  std::priority_queue queue(std::greater<Candidate>{}, std::move(heap));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    if (gone[top.at] || next[top.at] == kNone) continue;
    const uint32_t right = next[top.at];
    const MergeSlot* now = find_merge(symbols[top.at].id, symbols[right].id);
    if (!now || now->id != top.id) continue;  // the neighbourhood has changed since
    symbols[top.at].id = top.id;
    symbols[top.at].size += symbols[right].size;
    gone[right] = true;
    next[top.at] = next[right];
    if (next[right] != kNone) previous[next[right]] = top.at;
    if (previous[top.at] != kNone) {
      if (const auto c = candidate(previous[top.at], top.at)) queue.push(*c);
    }
    if (next[top.at] != kNone) {
      if (const auto c = candidate(top.at, next[top.at])) queue.push(*c);
    }
  }
  uint32_t kept = 0;
  for (uint32_t i = 0; i < n; ++i) {
    if (!gone[i]) symbols[kept++] = symbols[i];
  }
  symbols.resize(kept);
}

}  // namespace lorry::text
