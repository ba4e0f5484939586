#include "stages/import_model.h"

#include "base/log.h"
#include "cli/command.h"
#include "cli/shared_flags.h"
#include "stages/run.h"

namespace lorry::cli {
namespace {

class ImportModel final : public Command {
 public:
  void declare(Flags& flags) override {
    flags.positional("SOURCE", options_.source,
                     "Hub id, or directory (s3:// prefix) with config.json, tokenizer.json and "
                     "*.safetensors");
    flags.text("--revision", options_.revision, "REV",
               "branch, tag or commit of the Hub's repository (main)");
    flags.bucket_name("--model", options_.model,
                      "name in the bucket (the Hub id, or the directory's; MODEL_NAME)",
                      "MODEL_NAME");
    flags.text("--chat-template", options_.chat_template, "FILE",
               "Jinja template to use in place of the model's own");
    declare_wait(flags, options_.wait);
    flags.on("--fresh", options_.fresh, "copy again even if nothing changed");
  }

  Result<Outcome> run(const Context& context) override {
    LORRY_ASSIGN(options_.bucket, context.open_bucket(true));
    options_.progress = progress_line("import-model", "bytes");
    LORRY_ASSIGN(const auto report, stages::import_model(options_));
    options_.progress = nullptr;
    log::info("{}", stages::describe(report));
    return Outcome{{{"model", report.model},
                    {"architecture", report.architecture},
                    {"files", report.files},
                    {"bytes", report.bytes},
                    {"up_to_date", report.up_to_date}},
                   ""};
  }

 private:
  stages::ImportModelOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_import_model() { return std::make_unique<ImportModel>(); }

}  // namespace lorry::cli
