// libcurl, loaded when the first request is made.
//
// Loading it (and the thirty libraries behind it) takes 6 ms, which verbs that stay local need not
// pay. It is loaded with its own symbols first: libparquet exports an OpenSSL of another version
// under the same names, and libcurl has to find the one it was built for. The wheel has it linked
// in instead, with those names hidden (curl_linked.cc).
#pragma once

#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>

#include "base/result.h"

namespace lorry::net {

struct CurlLibrary {
  decltype(&curl_easy_init) easy_init = nullptr;
  decltype(&curl_easy_cleanup) easy_cleanup = nullptr;
  decltype(&curl_easy_reset) easy_reset = nullptr;
  CURLcode (*easy_setopt)(CURL*, CURLoption, ...) = nullptr;
  CURLcode (*easy_getinfo)(CURL*, CURLINFO, ...) = nullptr;
  decltype(&curl_easy_perform) easy_perform = nullptr;
  decltype(&curl_easy_strerror) easy_strerror = nullptr;
  decltype(&curl_slist_append) slist_append = nullptr;
  decltype(&curl_slist_free_all) slist_free_all = nullptr;
};

/// The libcurl that is linked in, initialised; nullptr if it could not be. Only the wheel defines
/// it.
const CurlLibrary* linked_curl() __attribute__((weak));

/// The library, initialised; unsupported, naming the package, if it is not installed.
Result<const CurlLibrary*> curl_library();

}  // namespace lorry::net
