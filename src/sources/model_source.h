// Where a model comes from: its files' names and sizes, and their bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace arrow::io {
class InputStream;
class RandomAccessFile;
}  // namespace arrow::io

namespace lorry::sources {

struct ModelFile {
  std::string name;  ///< in the bucket
  std::string path;  ///< at the source, for messages
  int64_t bytes = 0;
  std::string version;   ///< what changes with the bytes: time of change, ETag, the Hub's blob id
  std::string sha256;    ///< if the source tells it
  std::string git_blob;  ///< git's id of the bytes, if the source tells it
  std::function<Result<std::shared_ptr<arrow::io::RandomAccessFile>>()> open;
  /// From the begin to the end, read ahead where that pays.
  std::function<Result<std::shared_ptr<arrow::io::InputStream>>()> open_stream;
};

/// A local file.
Result<ModelFile> local_model_file(const std::string& name, const std::string& path);
/// A small file whole (at most 64 MB).
Result<std::string> read_whole(const ModelFile& file);

struct ModelSource {
  std::string name;              ///< for messages
  std::string default_name;      ///< of the model in the bucket
  Json origin = Json::object();  ///< for info.json: source, and of the Hub repository and commit
  std::vector<ModelFile> files;  ///< of the directory itself, not of its folders; by name
  std::string directory;         ///< local; empty: the source is elsewhere

  const ModelFile* find(const std::string& file) const;
};

/// A local directory, s3://, gs:// or az:// prefix, or a Hub id (owner/name,
/// hf://owner/name[@rev]). Lists it and reads nothing else. `revision` is the Hub's; empty: main.
Result<ModelSource> open_model_source(const std::string& source, const std::string& revision);

}  // namespace lorry::sources
