#include "cli/command.h"
#include "cli/example.h"

namespace lorry::cli {
namespace {

class Render final : public Command {
 public:
  void declare(Flags& flags) override {
    example_.declare(flags);
    flags.on("--add-generation-prompt", generation_prompt_,
             "end with the header of the next answer");
  }

  Result<Outcome> run(const Context& context) override {
    LORRY_TRY(example_.load(context));
    const auto& example = example_.example();
    std::string text = example.text;
    if (!example.is_text) {
      // A row as it is trained on; the user's own messages as `transformers` renders them.
      const auto adapt = example_.from_dataset() ? text::Adapt::kWhereItFails : text::Adapt::kNever;
      LORRY_ASSIGN(text, example_.chat().render(example.messages, example.tools, generation_prompt_,
                                                Json(nullptr), adapt));
    }
    return Outcome{{{"text", text}}, text};
  }

 private:
  ExampleFlags example_;
  bool generation_prompt_ = false;
};

}  // namespace

std::unique_ptr<Command> make_render() { return std::make_unique<Render>(); }

}  // namespace lorry::cli
