// Which kind of data a file name tells, as `datasets` 5.2 infers it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace lorry::hub {

/// The module of `datasets` that reads an extension (".jsonl": "json"); empty if none does.
/// Extensions are lower case, those of media upper case too.
std::string_view module_of_extension(std::string_view extension);

/// The extensions of a file's name, with their dots: "a.tar.gz" has ".tar" and ".gz".
std::vector<std::string> extensions_of(std::string_view path);

/// Whether `datasets` takes the file for data at all.
bool has_data_extension(std::string_view path);

/// A module and the extension that decided for it; both empty if nothing did.
struct InferredModule {
  std::string module, extension;
  bool operator==(const InferredModule&) const = default;
};

/// The module of the commonest extension; among equals Parquet, Arrow, JSON lines, JSON, CSV, then
/// the last by name. Metadata files of media folders count last. An archive (.zip) that wins is
/// module "zip": what is inside is seen only when it is opened.
InferredModule infer_module(const std::vector<std::string>& paths);

/// Whether the file is one that the module reads.
bool belongs_to_module(std::string_view path, std::string_view module);

}  // namespace lorry::hub
