#include "tokenizer/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "tokenizer/unicode.h"

namespace lorry::tokenizer {
namespace {

bool is_word(uint32_t code_point) {
  static const CodePointTable table(rust_word_set());
  return table.contains(code_point);
}

/// Start of the character that ends at `end`.
size_t character_before(std::string_view text, size_t end) {
  do --end;
  while (is_utf8_continuation(text[end]));
  return end;
}

bool ends_in_word(std::string_view text) {
  return !text.empty() &&
         is_word(decode_utf8(&text[character_before(text, text.size())]).code_point);
}

bool starts_with_word(std::string_view text) {
  return !text.empty() && is_word(decode_utf8(text.data()).code_point);
}

size_t skip_space_left(std::string_view text, size_t end, size_t floor) {
  while (end > floor) {
    const size_t begin = character_before(text, end);
    if (!is_whitespace(decode_utf8(&text[begin]).code_point)) break;
    end = begin;
  }
  return end;
}

size_t skip_space_right(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Decoded d = decode_utf8(&text[begin]);
    if (!is_whitespace(d.code_point)) break;
    begin += d.size;
  }
  return begin;
}

}  // namespace

void StringFinder::add(std::string_view string, int32_t id) {
  if (string.empty()) return;
  if (nodes_.empty()) nodes_.emplace_back();
  uint32_t node = 0;
  for (const char c : string) {
    const auto [it, added] = nodes_[node].children.try_emplace(
        static_cast<uint8_t>(c), static_cast<uint32_t>(nodes_.size()));
    const uint32_t child = it->second;
    if (added) nodes_.emplace_back();
    if (node == 0) roots_[static_cast<uint8_t>(c)] = child;
    node = child;
  }
  if (nodes_[node].id < 0) nodes_[node].id = id;  // of equal strings the first counts
  only_root_ = nodes_[0].children.size() == 1 ? std::optional(string[0]) : std::nullopt;
}

size_t StringFinder::next_root(std::string_view text, size_t from) const {
  if (only_root_) {
    const void* at = std::memchr(text.data() + from, *only_root_, text.size() - from);
    return at ? static_cast<size_t>(static_cast<const char*>(at) - text.data()) : text.size();
  }
  while (from < text.size() && roots_[static_cast<uint8_t>(text[from])] == 0) ++from;
  return from;
}

std::optional<StringFinder::Match> StringFinder::find(std::string_view text, size_t from) const {
  if (nodes_.empty()) return std::nullopt;
  for (size_t begin = from; (begin = next_root(text, begin)) < text.size(); ++begin) {
    uint32_t node = roots_[static_cast<uint8_t>(text[begin])];
    std::optional<Match> best;
    for (size_t end = begin + 1;; ++end) {
      if (nodes_[node].id >= 0) best = {begin, end, nodes_[node].id};
      if (end == text.size()) break;
      const auto it = nodes_[node].children.find(static_cast<uint8_t>(text[end]));
      if (it == nodes_[node].children.end()) break;
      node = it->second;
    }
    if (best) return best;
  }
  return std::nullopt;
}

void AddedTokens::add(AddedToken token, const WordModel& model, const Normalize& normalize) {
  if (token.content.empty()) return;
  if (const auto known = ids_.find(token.content);
      known != ids_.end() && by_id_[known->second] == token) {
    return;
  }
  int32_t id;
  if (const auto known = find(token.content)) {
    id = *known;
  } else if (const auto in_vocab = model.vocab().find(token.content)) {
    id = *in_vocab;
  } else {
    const auto size = static_cast<int32_t>(model.vocab_size());
    const int32_t last = by_id_.empty() ? -1 : by_id_.rbegin()->first;
    id = last >= 0 && (last >= size || size == 0) ? last + 1 : size;
  }
  if (token.normalized) {
    std::string form = normalize(token.content);
    if (form != token.content) normal_forms_[id] = std::move(form);
  }
  ids_[token.content] = id;
  if (token.special) special_texts_[token.content] = true;
  by_id_[id] = std::move(token);
}

void AddedTokens::build(bool split_special_tokens) {
  split_special_tokens_ = split_special_tokens;
  for (const auto& [id, token] : by_id_) {
    if (token.normalized) {
      const auto form = normal_forms_.find(id);
      normal_.add(form == normal_forms_.end() ? token.content : form->second, id);
    } else {
      raw_.add(token.content, id);
    }
  }
}

void AddedTokens::split(std::string_view text, bool normalized,
                        std::vector<TokenPiece>& pieces) const {
  const StringFinder& finder = normalized ? normal_ : raw_;
  size_t done = 0;  // everything before it is in a piece
  size_t from = 0;
  size_t space_begin = 1, space_end = 0;  // white space that was looked at last
  while (const auto match = finder.find(text, from)) {
    from = match->end;
    const AddedToken& token = by_id_.at(match->id);
    if (split_special_tokens_ && is_special_text(token.content)) continue;
    if (token.single_word &&
        (ends_in_word(text.substr(0, match->begin)) || starts_with_word(text.substr(match->end)))) {
      continue;
    }
    size_t begin = match->begin, end = match->end;
    // White space that an earlier token has taken is gone.
    if (token.lstrip) begin = std::max(skip_space_left(text, begin, done), done);
    if (token.rstrip) {
      if (end < space_begin || end > space_end) {
        space_begin = end;
        space_end = skip_space_right(text, end);
      }
      end = space_end;
    }
    if (done < begin) pieces.push_back({done, begin, -1});
    pieces.push_back({begin, end, match->id});
    done = end;
  }
  if (done < text.size()) pieces.push_back({done, text.size(), -1});
}

std::optional<int32_t> AddedTokens::find(std::string_view content) const {
  const auto it = ids_.find(std::string(content));
  return it == ids_.end() ? std::nullopt : std::optional(it->second);
}

const std::string* AddedTokens::text_of(int32_t id) const {
  if (const auto form = normal_forms_.find(id); form != normal_forms_.end()) return &form->second;
  const AddedToken* token = get(id);
  return token ? &token->content : nullptr;
}

const AddedToken* AddedTokens::get(int32_t id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &it->second;
}

bool AddedTokens::is_special_text(std::string_view text) const {
  return special_texts_.contains(std::string(text));
}

}  // namespace lorry::tokenizer
