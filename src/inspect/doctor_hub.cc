#include "inspect/doctor_hub.h"

#include <fmt/format.h>

#include <chrono>

#include "base/version.h"
#include "hub/access.h"
#include "hub/offline.h"
#include "inspect/doctor_bucket.h"
#include "net/http.h"

namespace lorry::inspect {
namespace {

Finding judge(const hub::Access& access, const net::Response& response, double milliseconds) {
  const std::string place = fmt::format("{} answers in {:.0f} ms", access.endpoint, milliseconds);
  const Json body = Json::parse(response.body, nullptr, false);
  const bool refused = response.status == 401 || response.status == 403;
  // Nobody: the Hub says 401 to that, in JSON, and so tells that it is one.
  if (access.token.empty() && refused && body.is_object())
    return ok("hub", place + "; no token: gated and private repositories need HF_TOKEN");
  if (refused && !access.token.empty())
    return fail("hub",
                fmt::format("{} refuses the token (from {})", access.endpoint, access.token_origin),
                "make a new one at https://huggingface.co/settings/tokens, or unset it");
  if (!response.ok() || !body.is_object() || !body.contains("name"))
    return warn(
        "hub",
        fmt::format("{} does not answer as a Hub does (HTTP {})", access.endpoint, response.status),
        "check HF_ENDPOINT");
  const Json name = body["name"];
  return ok("hub", fmt::format("{}; token (from {}) of {}", place, access.token_origin,
                               name.is_string() ? name.get<std::string>() : "someone"));
}

}  // namespace

Checked check_hub(double seconds) {
  if (hub::is_offline()) return {{ok("hub", "not asked: HF_HUB_OFFLINE is set")}};
  const hub::Access access = hub::find_access();
  const net::Client client(short_policy(seconds));
  net::Request request;
  request.url = access.endpoint + "/api/whoami-v2";
  request.what = "the Hub";
  request.headers = {{"User-Agent", fmt::format("lorry/{}", kVersion)}};
  if (!access.token.empty())
    request.headers.emplace_back("Authorization", "Bearer " + access.token);
  const auto begin = std::chrono::steady_clock::now();
  const auto response = client.send(std::move(request));
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
  if (!response.ok())
    return {{warn("hub", response.error().message,
                  "without it data and models come from files, URLs and buckets")}};
  return {{judge(access, *response, took.count())}};
}

}  // namespace lorry::inspect
