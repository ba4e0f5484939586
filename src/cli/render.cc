#include <fmt/format.h>

#include "base/log.h"
#include "cli/command.h"
#include "cli/example.h"
#include "cli/visible.h"

namespace lorry::cli {
namespace {

constexpr char kTrainedColour[] = "\x1b[32m", kNoColour[] = "\x1b[0m";

/// Byte ranges of the text that are trained on, of whole characters.
std::vector<std::pair<size_t, size_t>> trained_ranges(const chat::EncodedExample& row) {
  std::vector<std::pair<size_t, size_t>> out;
  for (size_t i = 0; i < row.input_ids.size(); ++i) {
    const auto [begin, end] = row.offsets[i];
    if (row.assistant_masks[i] == 0 || begin == end) continue;
    if (!out.empty() && begin <= out.back().second) {
      out.back().second = std::max<size_t>(out.back().second, end);
    } else {
      out.emplace_back(begin, end);
    }
  }
  return out;
}

/// For a terminal: what is trained on in colour, nothing that drives the terminal.
std::string painted(const chat::EncodedExample& row) {
  std::string out;
  size_t at = 0;
  const std::string_view text = row.text;
  for (const auto& [begin, end] : trained_ranges(row)) {
    out += visible(text.substr(at, begin - at), true) + kTrainedColour +
           visible(text.substr(begin, end - begin), true) + kNoColour;
    at = end;
  }
  return out + visible(text.substr(at), true);
}

class Render final : public Command {
 public:
  void declare(Flags& flags) override {
    example_.declare(flags);
    flags.on("--add-generation-prompt", generation_prompt_,
             "end with the header of the next answer");
  }

  Result<Outcome> run(const Context& context) override {
    LORRY_TRY(example_.load(context));
    if (generation_prompt_) return render_prompt(context);
    LORRY_ASSIGN(const auto rows, example_.encode());
    Json texts = Json::array();
    std::string out;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (i > 0) out += fmt::format("\n--- row {} of {} ---\n", i + 1, rows.size());
      out += context.colour     ? painted(rows[i])
             : context.terminal ? visible(rows[i].text, true)
                                : rows[i].text;
      texts.push_back({{"text", rows[i].text}});
    }
    if (!example_.remark().empty()) log::info("{}", example_.remark());
    for (const auto& loss : example_.losses()) log::warn("{}", loss);
    return Outcome{rows.size() == 1 ? Json(texts[0]) : Json{{"rows", std::move(texts)}}, out};
  }

 private:
  Result<Outcome> render_prompt(const Context& context) {
    const auto& example = example_.example();
    std::string text = example.text;
    if (!example.is_text) {
      LORRY_ASSIGN(text, example_.chat().render(example.messages, example.tools, true,
                                                Json(nullptr), example_.adapt()));
    }
    return Outcome{{{"text", text}}, context.terminal ? visible(text, true) : text};
  }

  ExampleFlags example_;
  bool generation_prompt_ = false;
};

}  // namespace

std::unique_ptr<Command> make_render() { return std::make_unique<Render>(); }

}  // namespace lorry::cli
