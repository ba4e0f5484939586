#include "cli/command.h"

namespace lorry::cli {

Result<std::shared_ptr<store::Bucket>> Context::open_bucket(bool create) const {
  return store::Bucket::open(bucket, create);
}

}  // namespace lorry::cli
