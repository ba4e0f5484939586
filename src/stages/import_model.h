// `lorry import-model`: a model of the Hub, or a directory laid out as one, into models/{model}/.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "store/bucket.h"

namespace lorry::stages {

struct ImportModelOptions {
  std::shared_ptr<store::Bucket> bucket;
  /// A Hub id, or a directory or bucket prefix with config.json, tokenizer.json and safetensors.
  std::string source;
  std::string revision;  ///< of the Hub: branch, tag or commit; empty: main
  std::string model;     ///< name in the bucket; empty: the Hub id, or the directory's name
  /// A Jinja file that becomes the model's chat template, for training and serving; empty: its own.
  std::string chat_template;
  bool fresh = false;  ///< copy again even if nothing changed
  bool wait = true;    ///< while another process writes or reads the model; false: fail at once
  std::function<void(int64_t bytes, int64_t bytes_total)> progress;
};

struct ImportModelReport {
  std::string model;
  std::string architecture;
  int64_t files = 0;
  int64_t bytes = 0;
  bool up_to_date = false;  ///< nothing had changed, nothing was done
  std::string digest;       ///< of info.json, as shard_work.h's digest_of_info
};

/// Checks the source (files, headers, architecture, tokenizer and template), then copies the files
/// that are needed, several at a time in bounded memory, and writes info.json (name, size and
/// checksums of each file, commit of the Hub) last. An interrupted import keeps its whole files.
/// Does nothing when the source is what was imported.
Result<ImportModelReport> import_model(const ImportModelOptions& options);

}  // namespace lorry::stages
