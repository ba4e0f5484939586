// Which data sets and models a bucket holds, and which one is meant when the user names none.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/result.h"
#include "store/bucket.h"

namespace lorry::pipeline {

/// Something below raw/, standardized/ or models/. Names may contain '/'.
struct Entry {
  std::string name;
  std::optional<Json> info;  ///< info.json; nullopt: begun and not complete
};

/// The entries of `root` ("models"), sorted by name. A directory counts if it holds an info.json,
/// or files or shards that an interrupted stage left.
Result<std::vector<Entry>> list_entries(const store::Bucket& bucket, const std::string& root);

/// What to work on: `name` if it is not empty, else the only complete entry of `root`. `what`
/// ("data set") and `flag` ("--dataset") are for the message, which lists the choices.
Result<std::string> choose(const store::Bucket& bucket, const std::string& root,
                           const std::string& name, const std::string& what,
                           const std::string& flag);

/// choose for models/, and for standardized/ or raw/.
Result<std::string> choose_model(const store::Bucket& bucket, const std::string& name);
Result<std::string> choose_dataset(const store::Bucket& bucket, const std::string& name);

/// The data sets whose training on `model` is finished.
Result<std::vector<std::string>> trained_datasets(const store::Bucket& bucket,
                                                  const std::string& model);

}  // namespace lorry::pipeline
