// Can the bucket be listed, written to, read back and cleaned up, and how fast does it answer?
#pragma once

#include <string>

#include "inspect/doctor_checks.h"
#include "net/http.h"

namespace lorry::inspect {

/// A policy of requests that ends within about `seconds`: two tries, not ten.
net::RetryPolicy short_policy(double seconds);

/// A directory of this machine, which need not be there yet. `may_write`: the disk has room.
Checked check_local_bucket(const std::string& uri, bool may_write);

/// s3://, gs://, az://. Writes a small object ".lorry-doctor-...", reads it back and removes it.
/// For S3 also the clock: S3 refuses signatures that are 15 minutes off.
Checked check_remote_bucket(const std::string& uri, double seconds);

/// The finding about a server's clock that is `ahead` seconds of ours.
Finding judge_clock(double ahead);

}  // namespace lorry::inspect
