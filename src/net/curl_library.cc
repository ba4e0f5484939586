#include "net/curl_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <string>

namespace lorry::net {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kLoadFlags = RTLD_NOW | RTLD_LOCAL;  // sanitizers refuse RTLD_DEEPBIND
#else
constexpr int kLoadFlags = RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND;
#endif

struct Loaded {
  CurlLibrary curl;
  std::string error;
};

template <typename Function>
void find(void* library, const char* name, Function& function, std::string& error) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  if (!function) error = fmt::format("libcurl has no {}; version 7.71 or newer is needed", name);
}

Loaded load() {
  Loaded loaded;
  if (linked_curl != nullptr) {
    const CurlLibrary* linked = linked_curl();
    if (linked == nullptr)
      loaded.error = "libcurl could not be initialised";
    else
      loaded.curl = *linked;
    return loaded;
  }
  void* library = nullptr;
  for (const char* name : {"libcurl.so.4", "libcurl-gnutls.so.4", "libcurl.so"}) {
    if (!library) library = ::dlopen(name, kLoadFlags);
  }
  if (!library) {
    loaded.error =
        "the network needs libcurl, which is not installed here; apt-get install libcurl4 (or the "
        "equivalent)";
    return loaded;
  }
  auto& curl = loaded.curl;
  decltype(&curl_global_init) global_init = nullptr;
  find(library, "curl_global_init", global_init, loaded.error);
  find(library, "curl_easy_init", curl.easy_init, loaded.error);
  find(library, "curl_easy_cleanup", curl.easy_cleanup, loaded.error);
  find(library, "curl_easy_reset", curl.easy_reset, loaded.error);
  find(library, "curl_easy_setopt", curl.easy_setopt, loaded.error);
  find(library, "curl_easy_getinfo", curl.easy_getinfo, loaded.error);
  find(library, "curl_easy_perform", curl.easy_perform, loaded.error);
  find(library, "curl_easy_strerror", curl.easy_strerror, loaded.error);
  find(library, "curl_slist_append", curl.slist_append, loaded.error);
  find(library, "curl_slist_free_all", curl.slist_free_all, loaded.error);
  if (loaded.error.empty() && global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
    loaded.error = "libcurl could not be initialised";
  }
  return loaded;
}

}  // namespace

Result<const CurlLibrary*> curl_library() {
  static const Loaded loaded = load();
  if (!loaded.error.empty()) return unsupported(loaded.error);
  return &loaded.curl;
}

}  // namespace lorry::net
