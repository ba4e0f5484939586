// Which data sets and models a bucket holds, and which one is meant when the user names none.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/result.h"
#include "store/bucket.h"

namespace lorry::inspect {

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

/// choose_model, but a model that is gone from models/ counts as long as something trained of it is
/// there to be served, unless the base alone is meant.
Result<std::string> choose_served_model(const store::Bucket& bucket, const std::string& name,
                                        bool base);

/// The runs of `model` that are finished: "dataset", or "dataset@run" (store::run_of).
Result<std::vector<std::string>> trained_datasets(const store::Bucket& bucket,
                                                  const std::string& model);

/// A run with a name, finished or not.
struct NamedRun {
  std::string model, dataset, run_name;
};
/// Those below `root`, "done" or "checkpoints", that belong to models of the bucket.
Result<std::vector<NamedRun>> list_named_runs(const store::Bucket& bucket, const std::string& root);

}  // namespace lorry::inspect
