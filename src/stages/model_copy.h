// A model's files into the bucket: several at a time, checked, and kept across interruptions.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "sources/model_source.h"
#include "store/bucket.h"

namespace lorry::stages {

/// What info.json says of a file: {name, bytes, sha256, crc32c, version}.
Json file_record(const sources::ModelFile& file, const std::string& sha256, uint32_t crc32c);

/// The record of `name` in a list of them; null if there is none.
Json find_record(const Json& records, const std::string& name);

/// Copies `files` to `dir` and returns their records, in order. Files that `known` records with the
/// same version and that are in the bucket with their size are kept. What is done is noted in
/// {dir}/import.json after each file, so that the next run goes on; the caller removes it. Memory
/// is a few MB a file in flight and the transfers' own. `progress` comes from one thread at a time.
/// Fails with corrupt data if a file is not what the source said it is (size, SHA-256, git's id).
Result<Json> copy_model_files(const store::Bucket& bucket, const std::string& dir,
                              const std::vector<sources::ModelFile>& files, const Json& known,
                              const std::function<void(int64_t, int64_t)>& progress);

/// The records of an interrupted copy, empty if there was none.
Result<Json> interrupted_copy(const store::Bucket& bucket, const std::string& dir);
std::string interrupted_copy_path(const std::string& dir);

/// SHA-256 of a file's bytes.
Result<std::string> digest_of(const sources::ModelFile& file);

}  // namespace lorry::stages
