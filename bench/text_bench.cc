// Rates of tokenizer and chat alone, for bench.py to set beside the peers'.
//
//   lorry_text_bench render MODEL_DIR CONVERSATIONS.jsonl THREADS [PASSES]   prints: seconds rows
//   bytes CPU-seconds
//   lorry_text_bench examples MODEL_DIR CONVERSATIONS.jsonl THREADS   ids and masks; prints:
//   seconds rows tokens
//   lorry_text_bench encode MODEL_DIR DOCUMENTS THREADS             prints: seconds documents
//   tokens CPU-seconds, and the seconds that loading the model took
//
// DOCUMENTS are UTF-8 texts divided by NUL bytes. Reading and parsing the input is not counted; one
// pass is made, the first, so no cache has seen the text before; `render` makes PASSES where one is
// too short to be measured.

#include <fmt/format.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/json.h"
#include "chat/chat.h"

namespace {

using lorry::Json;
using lorry::Result;

std::optional<std::string> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  std::ostringstream bytes;
  bytes << in.rdbuf();
  return std::move(bytes).str();
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) {
    if (!part.empty()) parts.push_back(std::move(part));
  }
  return parts;
}

struct Measured {
  double seconds = 0;
  size_t items = 0;
  int64_t amount = 0;  // what `work` returned, summed
  double cpu_seconds = 0;
  double load_seconds = 0;
};

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Runs work(i) for every i below `items` on `threads` threads.
Measured measure(size_t items, int threads, const std::function<int64_t(size_t)>& work) {
  constexpr size_t kChunk = 64;
  std::atomic<size_t> next = 0;
  std::atomic<int64_t> amount = 0;
  const double cpu_start = cpu_seconds();
  const auto start = Clock::now();
  std::vector<std::jthread> pool;
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([&] {
      int64_t mine = 0;
      for (size_t begin; (begin = next.fetch_add(kChunk)) < items;) {
        for (size_t i = begin; i < std::min(items, begin + kChunk); ++i) mine += work(i);
      }
      amount += mine;
    });
  }
  pool.clear();
  return {seconds_since(start), items, amount, cpu_seconds() - cpu_start};
}

struct Conversation {
  Json messages;
  Json tools;  // null if there are none
};

Result<std::vector<Conversation>> read_conversations(const std::string& input) {
  std::vector<Conversation> conversations;
  for (const std::string& line : split(input, '\n')) {
    LORRY_ASSIGN(Json row, lorry::parse_json(line, "conversation"));
    conversations.push_back({row.at("messages"), row.value("tools", Json())});
  }
  return conversations;
}

Result<Measured> render(const lorry::chat::Chat& chat, const std::string& input, int threads,
                        size_t passes) {
  LORRY_ASSIGN(const auto conversations, read_conversations(input));
  const auto text_of = [&](const Conversation& c) {
    return chat.render(c.messages, c.tools, false, nullptr);
  };
  LORRY_TRY(text_of(conversations.at(0)));
  const size_t rows = conversations.size();
  return measure(rows * passes, threads, [&](size_t i) -> int64_t {
    auto text = text_of(conversations[i % rows]);
    return text.ok() ? static_cast<int64_t>(text->size()) : 0;
  });
}

Result<Measured> examples(const lorry::chat::Chat& chat, const std::string& input, int threads) {
  LORRY_ASSIGN(const auto conversations, read_conversations(input));
  const auto example_of = [&](const Conversation& c) {
    return chat.encode_example(c.messages, c.tools);
  };
  LORRY_TRY(example_of(conversations.at(0)));
  return measure(conversations.size(), threads, [&](size_t i) -> int64_t {
    auto example = example_of(conversations[i]);
    return example.ok() ? static_cast<int64_t>(example->input_ids.size()) : 0;
  });
}

Measured encode(const lorry::chat::Chat& chat, const std::string& input, int threads) {
  const std::vector<std::string> documents = split(input, '\0');
  return measure(documents.size(), threads, [&](size_t i) {
    return static_cast<int64_t>(chat.tokenizer()->encode(documents[i], false).size());
  });
}

Result<Measured> run(const std::string& mode, const std::string& model, const std::string& file,
                     int threads, size_t passes) {
  const std::optional<std::string> input = read_file(file);
  if (!input) return lorry::not_found(file);
  const auto start = Clock::now();
  LORRY_ASSIGN(auto chat, lorry::chat::Chat::load(
                              [&](std::string_view name) -> Result<std::optional<std::string>> {
                                return read_file(model + "/" + std::string(name));
                              }));
  const double load_seconds = seconds_since(start);
  if (mode == "render") return render(*chat, *input, threads, passes);
  if (mode == "examples") return examples(*chat, *input, threads);
  if (mode == "encode") {
    Measured measured = encode(*chat, *input, threads);
    measured.load_seconds = load_seconds;
    return measured;
  }
  return lorry::usage_error("the first argument is render, examples or encode, not " + mode);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5 || argc > 6) {
    fmt::print(stderr,
               "usage: lorry_text_bench render|examples|encode MODEL_DIR INPUT THREADS [PASSES]\n");
    return 2;
  }
  const size_t passes = argc == 6 ? std::strtoul(argv[5], nullptr, 10) : 1;
  const auto measured = run(argv[1], argv[2], argv[3], std::atoi(argv[4]), passes);
  if (!measured.ok()) {
    fmt::print(stderr, "lorry_text_bench: {}\n", measured.error().message);
    return 1;
  }
  fmt::print("{:.6f} {} {} {:.6f} {:.6f}\n", measured->seconds, measured->items, measured->amount,
             measured->cpu_seconds, measured->load_seconds);
  return 0;
}
