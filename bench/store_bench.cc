// Files to a bucket and back, as a copying program does it: what bench.py compares with s5cmd,
// pyarrow and rclone.
//
//   lorry_store_bench put SRC URI/KEY     a file, or a directory's files to URI/KEY/...
//   lorry_store_bench get URI/KEY DST     the same way back
#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <thread>

#include "store/bucket.h"

namespace {

namespace fs = std::filesystem;
using namespace lorry;

int environment_int(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoi(text) : otherwise;
}

/// Runs `task(i)` for i below `count` on several threads; the first error.
template <typename Task>
Result<> in_parallel(size_t count, const Task& task) {
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  Result<> first;
  std::vector<std::thread> threads;
  const size_t most = size_t(environment_int("LORRY_BENCH_THREADS", 8));
  for (size_t t = 0; t < std::min(count, most); ++t) {
    threads.emplace_back([&] {
      for (size_t i; (i = next++) < count;) {
        auto result = task(i);
        if (result.ok()) continue;
        std::lock_guard lock(mutex);
        if (first.ok()) first = std::move(result);
        next = count;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  return first;
}

Result<> write_at(int fd, const char* data, size_t size, int64_t offset) {
  while (size > 0) {
    const ssize_t n = ::pwrite(fd, data, size, offset);
    if (n < 0) return unavailable("cannot write the file");
    data += n;
    offset += n;
    size -= size_t(n);
  }
  return {};
}

Result<> put_file(const store::Bucket& bucket, const fs::path& from, const std::string& key) {
  LORRY_ASSIGN(auto writer, bucket.create(key));
  const int fd = ::open(from.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return not_found(from.string());
  std::vector<char> block(1 << 20);
  for (;;) {
    const ssize_t n = ::read(fd, block.data(), block.size());
    if (n <= 0) break;
    LORRY_TRY(writer->write({block.data(), size_t(n)}));
  }
  ::close(fd);
  return writer->commit();
}

Result<> get_large(const store::Bucket& bucket, const std::string& key, const fs::path& to) {
  LORRY_ASSIGN(auto stream, bucket.open_stream(key));
  const int fd = ::open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return unavailable("cannot write " + to.string());
  int64_t done = 0;
  for (;;) {
    auto piece = stream->Read(4 << 20);
    if (!piece.ok()) return unavailable(piece.status().message());
    if ((*piece)->size() == 0) break;
    LORRY_TRY(write_at(fd, reinterpret_cast<const char*>((*piece)->data()),
                       size_t((*piece)->size()), done));
    done += (*piece)->size();
  }
  ::close(fd);
  return {};
}

Result<> get_small(const store::Bucket& bucket, const std::string& key, const fs::path& to) {
  LORRY_ASSIGN(const std::string bytes, bucket.read(key));
  const int fd = ::open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return unavailable("cannot write " + to.string());
  auto result = write_at(fd, bytes.data(), bytes.size(), 0);
  ::close(fd);
  return result;
}

Result<> put(const store::Bucket& bucket, const fs::path& from, const std::string& key) {
  if (!fs::is_directory(from)) return put_file(bucket, from, key);
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(from)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  return in_parallel(files.size(), [&](size_t i) {
    return put_file(bucket, files[i],
                    store::join_path(key, fs::relative(files[i], from).generic_string()));
  });
}

Result<> get(const store::Bucket& bucket, const std::string& key, const fs::path& to) {
  LORRY_ASSIGN(const auto info, bucket.stat(key));
  if (!info) return not_found(key + " is not there");
  if (!info->is_directory) return get_large(bucket, key, to);
  LORRY_ASSIGN(const auto found, bucket.list(key, true));
  fs::create_directories(to);
  return in_parallel(found.size(), [&](size_t i) -> Result<> {
    const fs::path target = to / found[i].path.substr(key.size() + 1);
    if (target.parent_path() != to) fs::create_directories(target.parent_path());
    if (found[i].size > 16 << 20) return get_large(bucket, found[i].path, target);
    return get_small(bucket, found[i].path, target);
  });
}

Result<> run(const std::string& verb, const std::string& from, const std::string& to) {
  const std::string& uri = verb == "put" ? to : from;
  const size_t slash = uri.find('/', uri.find("://") + 3);
  if (slash == std::string::npos) return usage_error("write s3://bucket/key");
  LORRY_ASSIGN(const auto bucket, store::Bucket::open(uri.substr(0, slash), false));
  const std::string key = uri.substr(slash + 1);
  return verb == "put" ? put(*bucket, from, key) : get(*bucket, key, to);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc == 4 ? argv[1] : "";
  if (verb != "put" && verb != "get") {
    std::fputs("usage: lorry_store_bench put SRC URI/KEY | get URI/KEY DST\n", stderr);
    return 2;
  }
  const auto done = run(verb, argv[2], argv[3]);
  if (done.ok()) return 0;
  std::fprintf(stderr, "%s\n", done.error().message.c_str());
  return 1;
}
