// A program for comparing with other tokenizers: reads one JSON object a line from stdin,
//   {"text": "...", "special": true} or {"ids": [1, 2], "skip": false}
// ("bytes" in hex instead of "text" for input that is not UTF-8), and answers each with one line of
// JSON: {"ids", "offsets"} or {"text", "stream"}.
//
//   lorry_tokenizer_probe DIR [--time FILE]     DIR holds tokenizer.json, tokenizer_config.json,
//   ...
#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "tokenizer/tokenizer.h"

namespace {

using lorry::Json;
using lorry::tokenizer::Tokenizer;

std::string read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string from_hex(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return out;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Json answer(const std::shared_ptr<const Tokenizer>& tokenizer, const Json& request) {
  if (request.contains("ids")) {
    const auto ids = request["ids"].get<std::vector<int32_t>>();
    const bool skip = request.value("skip", false);
    lorry::tokenizer::StreamDecoder stream(tokenizer, skip);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.push(id);
    streamed += stream.finish();
    return {{"text", tokenizer->decode(ids, skip)}, {"stream", streamed}};
  }
  const std::string text =
      request.contains("bytes") ? from_hex(request["bytes"]) : request["text"].get<std::string>();
  const bool special = request.value("special", true);
  const auto encoding = tokenizer->encode_with_offsets(text, special);
  Json out = {{"ids", tokenizer->encode(text, special)}, {"offsets", encoding.offsets}};
  out["same"] = encoding.ids == tokenizer->encode(text, special);
  return out;
}

void time_encoding(const Tokenizer& tokenizer, const std::string& path) {
  const std::string all = read(path);
  std::vector<int32_t> ids;
  const std::clock_t start = std::clock();  // of the processor: the machine may be busy
  size_t n = 0;
  for (size_t at = 0; at < all.size();) {  // line by line, as rows come
    size_t end = all.find('\n', at);
    end = end == all.npos ? all.size() : end + 1;
    ids.clear();
    tokenizer.encode_append(std::string_view(all).substr(at, end - at), false, ids);
    n += ids.size();
    at = end;
  }
  const double s = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  std::fprintf(stderr, "%zu tokens, %.1f MB/s\n", n, static_cast<double>(all.size()) / 1e6 / s);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: lorry_tokenizer_probe DIR [--time FILE]\n");
    return 2;
  }
  const std::string dir = std::string(argv[1]) + "/";
  const std::string files[] = {read(dir + "tokenizer.json"), read(dir + "tokenizer_config.json"),
                               read(dir + "special_tokens_map.json"), read(dir + "config.json")};
  const auto start = std::chrono::steady_clock::now();
  auto loaded =
      Tokenizer::load(lorry::tokenizer::TokenizerFiles{files[0], files[1], files[2], files[3]});
  if (!loaded.ok()) {
    std::fprintf(stderr, "%s\n", loaded.error().message.c_str());
    return 1;
  }
  std::fprintf(stderr, "loaded in %.0f ms\n", seconds_since(start) * 1e3);
  if (argc == 4) {
    time_encoding(**loaded, argv[3]);
    return 0;
  }
  std::cout << lorry::dump_json({{"special_tokens_map", (*loaded)->special_tokens_map()},
                                 {"vocab_size", (*loaded)->vocab_size()},
                                 {"digest", (*loaded)->digest()}})
            << "\n";
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << lorry::dump_json(answer(*loaded, Json::parse(line))) << std::endl;
  }
  return 0;
}
