// A verb: its flags, and a short run that calls the library. verbs.cc lists them all.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/result.h"
#include "base/settings.h"
#include "cli/flags.h"
#include "store/bucket.h"

namespace lorry::cli {

/// What every verb knows.
struct Context {
  Settings settings;
  const Flags* flags = nullptr;
  std::string bucket;  ///< the URI, from --bucket, BUCKET_NAME or the default
  bool json = false;   ///< results on stdout as JSON
  bool quiet = false;
  bool verbose = false;
  bool terminal = false;  ///< stdout is one
  bool colour = false;    ///< stdout is a terminal that wants colours

  Result<std::shared_ptr<store::Bucket>> open_bucket(bool create) const;
};

/// What a verb leaves: `json` with --json, else `text`, on stdout. `failed`: exit code 1 all the
/// same (what was asked for was looked at and found wanting).
struct Outcome {
  Json json;
  std::string text;
  bool failed = false;
};

/// One object a run of the program.
class Command {
 public:
  virtual ~Command() = default;
  virtual void declare(Flags& flags) = 0;
  virtual Result<Outcome> run(const Context& context) = 0;
};

struct Verb {
  std::string name;
  std::string summary;  ///< one line
  std::string example;  ///< a worked example, several lines
  std::unique_ptr<Command> (*make)();
};

/// In the order in which a user meets them.
const std::vector<Verb>& verbs();

std::unique_ptr<Command> make_import_dataset();
std::unique_ptr<Command> make_import_model();
std::unique_ptr<Command> make_standardize();
std::unique_ptr<Command> make_pretokenize();
std::unique_ptr<Command> make_train();
std::unique_ptr<Command> make_run();
std::unique_ptr<Command> make_serve();
std::unique_ptr<Command> make_chat();
std::unique_ptr<Command> make_eval();
std::unique_ptr<Command> make_status();
std::unique_ptr<Command> make_plan();
std::unique_ptr<Command> make_verify();
std::unique_ptr<Command> make_doctor();
std::unique_ptr<Command> make_render();
std::unique_ptr<Command> make_tokenize();

}  // namespace lorry::cli
