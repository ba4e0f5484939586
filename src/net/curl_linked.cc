// libcurl linked into the program: for the wheel, whose machine may have none. Not part of the
// room.
#include "net/curl_library.h"

#include <openssl/crypto.h>

namespace lorry::net {

const CurlLibrary* linked_curl() {
  // The machine's openssl.cnf is for another OpenSSL; it may name modules that do not fit this one.
  OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) return nullptr;
  static const CurlLibrary kCurl = {&curl_easy_init,     &curl_easy_cleanup, &curl_easy_reset,
                                    &curl_easy_setopt,   &curl_easy_getinfo, &curl_easy_perform,
                                    &curl_easy_strerror, &curl_slist_append, &curl_slist_free_all};
  return &kCurl;
}

}  // namespace lorry::net
