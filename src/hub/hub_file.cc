// A file of a repository, read by range.
#include <fmt/format.h>

#include <mutex>

#include "hub/hub.h"
#include "net/content_range.h"

namespace lorry::hub {
namespace {

/// Large files lie on another host, which the Hub redirects to by a URL that expires. It is asked
/// for once, and again when the other host refuses it.
class HubFile final : public net::RangeSource {
 public:
  HubFile(const Hub& hub, Repo repo, RepoFile file)
      : hub_(hub),
        repo_(std::move(repo)),
        file_(std::move(file)),
        name_(Hub::file_name(repo_, file_.path)),
        url_(hub.file_url(repo_, file_.path)) {}

  int64_t size() const override { return file_.size; }
  const std::string& name() const override { return name_; }

  Result<> read(int64_t offset, std::span<char> into) override {
    if (into.empty()) return {};
    const std::string known = location();
    if (!known.empty()) {
      LORRY_ASSIGN(const auto response, get(known, {}, offset, into));
      if (response.ok()) return {};
      forget(known);  // expired
    }
    LORRY_ASSIGN(const auto response, get(url_, hub_.headers(), offset, into));
    if (!response.ok()) return hub_.explain(repo_.kind, repo_.id, repo_.commit, response);
    if (net::url_origin(response.url) != net::url_origin(url_)) keep(response.url);
    return {};
  }

 private:
  Result<net::Response> get(const std::string& url, net::Headers headers, int64_t offset,
                            std::span<char> into) const {
    const int64_t last = offset + int64_t(into.size()) - 1;
    net::Request request;
    request.url = url;
    request.what = name_;
    request.headers = std::move(headers);
    request.headers.emplace_back("Range", fmt::format("bytes={}-{}", offset, last));
    request.into = into;
    request.exact = true;
    request.on_head = [&](const net::Response& head) { return check(head, offset, last); };
    return hub_.client().send(std::move(request));
  }

  Result<> check(const net::Response& head, int64_t first, int64_t last) const {
    const auto value = head.header("content-range");
    const auto range = value ? net::parse_content_range(*value) : std::nullopt;
    if (head.status == 200 && first == 0 && last + 1 == file_.size) return {};
    if (!range || range->first != first || range->last != last) {
      return corrupt_data(fmt::format("{}: asked for bytes {}-{}, the server sends \"{}\"", name_,
                                      first, last, value.value_or("no Content-Range")));
    }
    if (range->total >= 0 && range->total != file_.size) {
      return corrupt_data(fmt::format("{} is {} bytes long, the Hub's list says {}", name_,
                                      range->total, file_.size));
    }
    return {};
  }

  std::string location() const {
    const std::lock_guard lock(mutex_);
    return location_;
  }
  void keep(const std::string& url) {
    const std::lock_guard lock(mutex_);
    location_ = url;
  }
  void forget(const std::string& url) {
    const std::lock_guard lock(mutex_);
    if (location_ == url) location_.clear();
  }

  const Hub hub_;
  const Repo repo_;
  const RepoFile file_;
  const std::string name_;
  const std::string url_;
  mutable std::mutex mutex_;
  std::string location_;  ///< guarded by mutex_; empty: not known
};

}  // namespace

std::shared_ptr<net::RangeSource> Hub::open(const Repo& repo, const RepoFile& file) const {
  return std::make_shared<HubFile>(*this, repo, file);
}

}  // namespace lorry::hub
