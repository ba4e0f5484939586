#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/progress.h"
#include "base/utf8.h"
#include "cli/command.h"
#include "cli/example.h"
#include "cli/visible.h"
#include "tokenizer/unicode.h"

namespace lorry::cli {
namespace {

constexpr char kTrainedColour[] = "\x1b[32m", kPlainColour[] = "\x1b[2m", kNoColour[] = "\x1b[0m";

/// The bytes of the text that one token stands for; what a token without any decodes to.
class Pieces {
 public:
  Pieces(const chat::EncodedExample& example, const tokenizer::Tokenizer& tokenizer)
      : example_(example), tokenizer_(tokenizer) {}

  std::string at(size_t token) const {
    const auto [begin, end] = example_.offsets[token];
    const int32_t id = example_.input_ids[token];
    if (begin == end) return tokenizer_.decode({&id, 1}, false);
    std::string bytes = example_.text.substr(begin, end - begin);
    // Tokens of single bytes share the place of their character.
    const size_t first = first_of_place(token);
    const bool shared = first != token || (token + 1 < example_.offsets.size() &&
                                           example_.offsets[token + 1] == example_.offsets[token]);
    if (shared && token - first < bytes.size()) return bytes.substr(token - first, 1);
    return bytes;
  }

 private:
  size_t first_of_place(size_t token) const {
    while (token > 0 && example_.offsets[token - 1] == example_.offsets[token]) --token;
    return token;
  }

  const chat::EncodedExample& example_;
  const tokenizer::Tokenizer& tokenizer_;
};

/// Byte ranges as ranges of whole characters, which is how Python counts.
Json character_offsets(const chat::EncodedExample& example) {
  std::vector<uint32_t> before(example.text.size() + 1);  // characters that begin before a byte
  uint32_t characters = 0;
  for (size_t i = 0; i < example.text.size(); ++i) {
    before[i] = characters;
    characters += !is_utf8_continuation(example.text[i]);
  }
  before.back() = characters;
  Json out = Json::array();
  for (auto [begin, end] : example.offsets) {
    while (begin > 0 && begin < end && is_utf8_continuation(example.text[begin])) --begin;
    out.push_back({before[begin], before[end]});
  }
  return out;
}

class Tokenize final : public Command {
 public:
  void declare(Flags& flags) override { example_.declare(flags); }

  Result<Outcome> run(const Context& context) override {
    LORRY_TRY(example_.load(context));
    LORRY_ASSIGN(const auto rows, example_.encode());
    Json all = Json::array();
    std::string text;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (rows.size() > 1) text += fmt::format("row {} of {}:\n", i + 1, rows.size());
      all.push_back(to_json(rows[i]));
      text += table(rows[i], context.colour);
      text += fmt::format("{} tokens, {} trained on{}\n", format_count(tokens(rows[i])),
                          format_count(targets(rows[i])), remark(rows[i]));
    }
    if (!example_.remark().empty()) text += example_.remark() + "\n";
    for (const auto& loss : example_.losses()) log::warn("{}", loss);
    return Outcome{rows.size() == 1 ? Json(all[0]) : Json{{"rows", std::move(all)}}, text};
  }

 private:
  static int64_t tokens(const chat::EncodedExample& row) {
    return static_cast<int64_t>(row.input_ids.size());
  }
  static int64_t targets(const chat::EncodedExample& row) {
    return std::count(row.assistant_masks.begin(), row.assistant_masks.end(), 1);
  }

  static std::string remark(const chat::EncodedExample& row) {
    if (targets(row) == 0) return ": " + stages::why_no_target(row);
    return row.trains_end ? "" : ", no end token among them: the model will not learn to stop";
  }

  Json to_json(const chat::EncodedExample& row) const {
    const Pieces pieces(row, *example_.chat().tokenizer());
    Json shown = Json::array();
    for (size_t i = 0; i < row.input_ids.size(); ++i)
      shown.push_back(with_named_bytes(pieces.at(i)));
    return {{"text", row.text},
            {"input_ids", row.input_ids},
            {"assistant_masks", row.assistant_masks},
            {"tokens", std::move(shown)},
            {"offsets", character_offsets(row)}};
  }

  /// A line a token: id, a mark where it is trained on, the piece.
  std::string table(const chat::EncodedExample& row, bool colour) const {
    const Pieces pieces(row, *example_.chat().tokenizer());
    std::string out;
    for (size_t i = 0; i < row.input_ids.size(); ++i) {
      const bool trained = row.assistant_masks[i] == 1;
      out += fmt::format("{:>7} {} {}{}{}\n", row.input_ids[i], trained ? '*' : ' ',
                         !colour   ? ""
                         : trained ? kTrainedColour
                                   : kPlainColour,
                         visible(pieces.at(i)), colour ? kNoColour : "");
    }
    return out;
  }

  ExampleFlags example_;
};

}  // namespace

std::unique_ptr<Command> make_tokenize() { return std::make_unique<Tokenize>(); }

}  // namespace lorry::cli
