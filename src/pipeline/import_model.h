// `lorry import-model`: a model directory, as the Hub lays it out, into models/{model}/.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "store/bucket.h"

namespace lorry::pipeline {

struct ImportModelOptions {
  std::shared_ptr<store::Bucket> bucket;
  std::string source;  ///< a directory with config.json, tokenizer.json and safetensors
  std::string model;   ///< name in the bucket; empty: the directory's name
  /// A Jinja file that becomes the model's chat template, for training and serving; empty: its own.
  std::string chat_template;
  bool fresh = false;  ///< copy again even if nothing changed
  std::function<void(int64_t bytes, int64_t bytes_total)> progress;
};

struct ImportModelReport {
  std::string model;
  std::string architecture;
  int64_t files = 0;
  int64_t bytes = 0;
  bool up_to_date = false;  ///< nothing had changed, nothing was done
};

/// Checks the directory (files, headers, architecture, tokenizer and template), then copies it file
/// by file in constant memory and writes info.json (name, size and SHA-256 of each file) last.
/// Does nothing when the source is what was imported.
Result<ImportModelReport> import_model(const ImportModelOptions& options);

}  // namespace lorry::pipeline
