#include "inspect/status.h"

#include "cli/command.h"

namespace lorry::cli {
namespace {

class Status final : public Command {
 public:
  void declare(Flags&) override {}

  Result<Outcome> run(const Context& context) override {
    LORRY_ASSIGN(const auto bucket, context.open_bucket(false));
    LORRY_ASSIGN(Json status, inspect::read_status(*bucket));
    std::string text = inspect::format_status(status);
    return Outcome{std::move(status), std::move(text)};
  }
};

}  // namespace

std::unique_ptr<Command> make_status() { return std::make_unique<Status>(); }

}  // namespace lorry::cli
