// The words of every message are found at once (regions.h), and then the turns between them:
// each kind of seam between two messages is looked up, or found by rendering the conversation again
// (turn_finder.h), once. So the work grows with the text, not with turns times text. Where a
// template cannot be read so, each turn is found on its own.
#include "chat/spans.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "chat/calls.h"
#include "chat/regions.h"
#include "chat/turn_finder.h"

namespace lorry::chat {

namespace {

bool is_assistant(const Json& message) {
  const auto role = message.find("role");
  return role != message.end() && *role == "assistant";
}

// Stands for the role in a seam's key.
std::string role_of(const Json& message) {
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string()) return "?";
  return role->get_ref<const std::string&>();
}

class SpanFinder {
 public:
  SpanFinder(const Json& messages, const std::string& text, const tokenizer::Encoding& encoding,
             const tokenizer::Tokenizer& tokenizer, const SpanRender& render, const Seams& known,
             Seams* found)
      : messages_(messages),
        text_(text),
        encoding_(encoding),
        render_(render),
        known_(known),
        found_(found == nullptr ? own_ : *found),
        turns_(messages, text, encoding, tokenizer, render) {}

  std::vector<AssistantSpan> run() {
    if (std::none_of(messages_.begin(), messages_.end(), is_assistant)) return {};
    if (auto regions = words()) use(*std::move(regions));
    std::vector<AssistantSpan> out;
    size_t last_end = 0;
    for (size_t i = 0; i < messages_.size(); ++i) {
      if (!is_assistant(messages_[i])) continue;
      const auto span = turn(i, last_end);
      if (!span || span->first < last_end) continue;
      last_end = span->second;
      const auto [begin, end] = on_tokens(i, *span);
      out.push_back({begin, end, i});
    }
    return out;
  }

 private:
  /// A token is trained on as a whole. That of the turn's first character is, even if it begins in
  /// the header (" Yes" after "assistant:"); one that holds a part of the end that the template
  /// writes ("</turn>") and the beginning of what follows is not.
  Span on_tokens(size_t i, Span span) const {
    if (span.first == span.second) return span;
    span.first = token_around(encoding_, span.first).first;
    const Span last = token_around(encoding_, span.second - 1);
    if (last.second > span.second && last.first >= said_end(i, span)) span.second = last.first;
    return span;
  }

  /// Where the words of message i end in its turn, at the latest.
  size_t said_end(size_t i, Span turn) const {
    const auto content = messages_[i].find("content");
    if (content == messages_[i].end() || !content->is_string()) return turn.second;
    const std::string_view words = content->get_ref<const std::string&>();
    const auto stripped = words.substr(0, words.find_last_not_of(" \t\n\v\f\r") + 1);
    if (stripped.empty() || has_calls(messages_[i])) return turn.second;
    const auto shown = std::string_view(text_).substr(turn.first, turn.second - turn.first);
    for (const auto& said : {words, stripped}) {
      if (const size_t at = shown.rfind(said); at != shown.npos)
        return turn.first + at + said.size();
    }
    return turn.second;
  }

  /// What lies around message i: the ends of its neighbours' words and its own.
  struct Place {
    size_t before = 0;  ///< where the words before end
    size_t begin = 0, end = 0;
    size_t after = 0;      ///< where the words behind begin
    SeamText left, right;  ///< text[before, begin) and text[end, after)
    std::string key;
  };

  std::optional<Regions> words() {
    if (auto regions = known_.gaps.read(messages_, text_)) return regions;
    auto regions = find_regions(messages_, text_, render_);
    if (regions) found_.gaps.add(messages_, text_, *regions);
    return regions;
  }

  void use(Regions regions) {
    regions_ = std::move(regions);
    for (size_t i = 0; i < regions_.size(); ++i) {
      if (regions_[i]) by_place_.push_back(i);
    }
    std::sort(by_place_.begin(), by_place_.end(),
              [&](size_t a, size_t b) { return *regions_[a] < *regions_[b]; });
    rank_.resize(regions_.size());
    for (size_t r = 0; r < by_place_.size(); ++r) rank_[by_place_[r]] = r;
  }

  std::optional<Span> turn(size_t i, size_t last_end) {
    const auto place = place_of(i);
    if (!place) return turns_.find(i, last_end, std::nullopt);
    const auto* seam = known_.find(place->key);
    if (seam == nullptr) seam = found_.find(place->key);
    if (seam == nullptr) return learn(i, last_end, *place);
    if (!*seam) return std::nullopt;
    return Span{place->before + place->left.original((*seam)->begin),
                place->end + place->right.original((*seam)->end)};
  }

  std::optional<Span> learn(size_t i, size_t last_end, const Place& place) {
    auto span = turns_.find(i, last_end, place.end);
    if (span && regions_[i]) {
      span = turns_.mend(i, *span, {place.begin, place.end}, place.before, place.after);
    }
    if (!span) {
      found_.add(place.key, std::nullopt);
      return span;
    }
    // Else the turn is cut by something that is not in the key.
    const bool inside = place.before <= span->first && span->first <= place.begin &&
                        place.end <= span->second && span->second <= place.after;
    if (!inside) return span;
    const auto begin = place.left.place(span->first - place.before);
    const auto end = place.right.place(span->second - place.end);
    if (begin && end) found_.add(place.key, Seams::Seam{*begin, *end});
    return span;
  }

  std::optional<Place> place_of(size_t i) const {
    if (regions_.empty()) return std::nullopt;
    return regions_[i] ? place_of_words(i) : place_without_words(i);
  }

  std::optional<Place> place_of_words(size_t i) const {
    const size_t rank = rank_[i];
    Place place;
    place.begin = regions_[i]->first;
    place.end = regions_[i]->second;
    place.before = rank == 0 ? 0 : regions_[by_place_[rank - 1]]->second;
    place.after =
        rank + 1 == by_place_.size() ? text_.size() : regions_[by_place_[rank + 1]]->first;
    place.key = "words" + key_parts(i);
    if (rank > 0) place.key += "\n<" + role_of(messages_[by_place_[rank - 1]]);
    if (rank + 1 < by_place_.size()) place.key += "\n>" + role_of(messages_[by_place_[rank + 1]]);
    const auto names = names_around(i);
    place.left = seam_text(place.before, place.begin, names);
    place.right = seam_text(place.end, place.after, names);
    place.key += '\0' + place.left.text() + '\0' + place.right.text();
    return place;
  }

  /// A message that says nothing stands between the words of its neighbours.
  std::optional<Place> place_without_words(size_t i) const {
    size_t last = i, next = i + 1;  // neighbours with words: last - 1 and next
    while (last > 0 && !regions_[last - 1]) --last;
    while (next < regions_.size() && !regions_[next]) ++next;
    const size_t before = last == 0 ? 0 : rank_[last - 1] + 1;  // of those with words
    const size_t behind = next == regions_.size() ? by_place_.size() : rank_[next];
    if (before != behind) return std::nullopt;  // the text has another order
    Place place;
    place.before = last == 0 ? 0 : regions_[last - 1]->second;
    place.after = next == regions_.size() ? text_.size() : regions_[next]->first;
    place.begin = place.after;
    place.end = place.before;
    place.key = "none" + key_parts(i);
    for (size_t k = last; k < next; ++k)
      place.key += (k == i ? "\n!" : "\n-") + role_of(messages_[k]);
    place.left = place.right = seam_text(place.before, place.after, names_around(i));
    place.key += '\0' + place.left.text();
    return place;
  }

  SeamText seam_text(size_t begin, size_t end, const std::vector<std::string_view>& names) const {
    return SeamText(std::string_view(text_).substr(begin, end - begin), names);
  }

  /// Ids and names of the calls of message i and its neighbours.
  std::vector<std::string_view> names_around(size_t i) const {
    std::vector<std::string_view> names;
    const auto add = [&](const Json& object, const char* key) {
      const auto value = object.find(key);
      if (value != object.end() && value->is_string() && !value->empty())
        names.push_back(value->get_ref<const std::string&>());
    };
    for (size_t k = i == 0 ? 0 : i - 1; k < std::min(i + 2, messages_.size()); ++k) {
      add(messages_[k], "tool_call_id");
      add(messages_[k], "name");
      if (!has_calls(messages_[k])) continue;
      for (const Json& call : messages_[k]["tool_calls"]) {
        if (!call.is_object()) continue;
        add(call, "id");
        const auto function = call.find("function");
        add(function != call.end() && function->is_object() ? *function : call, "name");
      }
    }
    std::erase_if(names, [](std::string_view name) { return name.empty(); });
    return names;
  }

  /// What else decides where a turn ends (turn_finder.h).
  std::string key_parts(size_t i) const {
    std::string key = i == 0 ? " first" : "";
    if (i + 1 == messages_.size()) key += " last";
    if (has_calls(messages_[i])) key += " calls";
    const auto content = messages_[i].find("content");
    if (content == messages_[i].end() || !content->is_string()) return key;
    const auto& s = content->get_ref<const std::string&>();
    const size_t begin = s.find_first_not_of(" \t\n\v\f\r");
    if (begin == s.npos) return key + " blank";
    return key + " said" + s.substr(s.find_last_not_of(" \t\n\v\f\r") + 1);
  }

  const Json& messages_;
  const std::string& text_;
  const tokenizer::Encoding& encoding_;
  const SpanRender& render_;
  const Seams& known_;
  Seams own_;
  Seams& found_;
  TurnFinder turns_;
  Regions regions_;               ///< empty: not known
  std::vector<size_t> by_place_;  ///< messages with words, as they stand in the text
  std::vector<size_t> rank_;      ///< their places there
};

}  // namespace

Span token_around(const tokenizer::Encoding& encoding, size_t byte) {
  const auto& offsets = encoding.offsets;
  auto it = std::upper_bound(offsets.begin(), offsets.end(), byte,
                             [](size_t b, const auto& range) { return b < range.first; });
  while (it != offsets.begin()) {
    --it;
    if (it->first == it->second) continue;  // a token without text
    if (it->second <= byte) break;
    return {it->first, it->second};
  }
  return {byte, byte};
}

std::vector<AssistantSpan> assistant_spans(const Json& messages, const std::string& text,
                                           const tokenizer::Encoding& encoding,
                                           const tokenizer::Tokenizer& tokenizer,
                                           const SpanRender& render, const Seams& known,
                                           Seams* found) {
  return SpanFinder(messages, text, encoding, tokenizer, render, known, found).run();
}

}  // namespace lorry::chat
