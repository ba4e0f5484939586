#include <fmt/format.h>

#include <algorithm>

#include "base/progress.h"
#include "cli/command.h"
#include "cli/example.h"

namespace lorry::cli {
namespace {

constexpr char kTrainedColour[] = "\x1b[32m", kPlainColour[] = "\x1b[2m", kNoColour[] = "\x1b[0m";

/// The bytes of one token with line breaks and tabs made visible.
std::string visible(const std::string& piece) {
  std::string out;
  for (char c : piece) {
    if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (c == '\r')
      out += "\\r";
    else
      out += c;
  }
  return out;
}

class Tokenize final : public Command {
 public:
  void declare(Flags& flags) override { example_.declare(flags); }

  Result<Outcome> run(const Context& context) override {
    LORRY_TRY(example_.load(context));
    LORRY_ASSIGN(const auto encoded, pipeline::encode(example_.chat(), example_.example()));
    const auto& tokenizer = *example_.chat().tokenizer();
    Json pieces = Json::array();
    for (int32_t id : encoded.input_ids) pieces.push_back(tokenizer.decode({&id, 1}, false));
    const auto targets =
        std::count(encoded.assistant_masks.begin(), encoded.assistant_masks.end(), 1);
    const std::string text =
        table(encoded, pieces, context.colour) +
        fmt::format("{} tokens, {} trained on\n",
                    format_count(static_cast<int64_t>(encoded.input_ids.size())),
                    format_count(targets));
    return Outcome{{{"text", encoded.text},
                    {"input_ids", encoded.input_ids},
                    {"assistant_masks", encoded.assistant_masks},
                    {"tokens", std::move(pieces)}},
                   text};
  }

 private:
  /// A line a token: id, a mark where it is trained on, the piece.
  static std::string table(const text::EncodedExample& encoded, const Json& pieces, bool colour) {
    std::string out;
    for (size_t i = 0; i < encoded.input_ids.size(); ++i) {
      const bool trained = encoded.assistant_masks[i] == 1;
      const std::string piece = visible(pieces[i].get<std::string>());
      out += fmt::format("{:>7} {} {}{}{}\n", encoded.input_ids[i], trained ? '*' : ' ',
                         !colour   ? ""
                         : trained ? kTrainedColour
                                   : kPlainColour,
                         piece, colour ? kNoColour : "");
    }
    return out;
  }

  ExampleFlags example_;
};

}  // namespace

std::unique_ptr<Command> make_tokenize() { return std::make_unique<Tokenize>(); }

}  // namespace lorry::cli
