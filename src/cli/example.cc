#include "cli/example.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <fstream>
#include <iostream>
#include <sstream>

#include "base/log.h"
#include "base/progress.h"
#include "cli/shared_flags.h"
#include "data/shard.h"
#include "inspect/names.h"
#include "stages/pretokenize.h"
#include "stages/template_date.h"
#include "store/layout.h"

namespace lorry::cli {

void ExampleFlags::declare(Flags& flags) {
  declare_dataset(flags, dataset_);
  declare_model(flags, model_);
  flags.integer("--row", row_, at_least(0), "row of the standardized data set, counted from 0");
  flags.text("--messages", messages_, "FILE",
             "JSON instead: a list of messages, or {messages, tools}; - is stdin");
  flags.text("--text", text_, "TEXT", "plain text instead");
  encoding_.declare(flags);
  template_.declare(flags);
}

Result<> ExampleFlags::load(const Context& context) {
  LORRY_TRY(encoding_.apply(context));
  LORRY_TRY(check_sources(*context.flags));
  LORRY_ASSIGN(const auto bucket, context.open_bucket(false));
  const bool given = !model_.empty();
  LORRY_ASSIGN(model_, inspect::choose_model(*bucket, model_));
  if (!given) log::info("model: {}", model_);
  LORRY_ASSIGN(auto settings, template_.settings());
  const bool is_row = !context.flags->given("--text") && messages_.empty();
  Json info;
  if (is_row) {
    LORRY_ASSIGN(info, choose_dataset(*bucket));
  }
  const std::string given_date = settings.date;
  if (is_row && settings.date.empty()) settings.date = info.value("imported_on", "");
  LORRY_ASSIGN(chat_, stages::load_chat(*bucket, model_, std::move(settings)));
  stages::report_unused_date(*chat_, model_, given_date);
  if (context.flags->given("--text")) {
    example_.text = text_;
    example_.is_text = true;
    return {};
  }
  if (!messages_.empty()) return load_messages();
  return load_row(*bucket, info);
}

Result<> ExampleFlags::check_sources(const Flags& flags) const {
  std::vector<std::string> given;
  for (const char* flag : {"--row", "--messages", "--text"}) {
    if (flags.given(flag)) given.emplace_back(flag);
  }
  if (given.size() < 2) return {};
  return usage_error(
      fmt::format("{} are examples of their own; give one of them", fmt::join(given, " and ")));
}

Result<std::vector<chat::EncodedExample>> ExampleFlags::encode() {
  LORRY_ASSIGN(auto whole, stages::encode(*chat_, example_,
                                          {.train_on = stages::train_on_from(encoding_.train_on()),
                                           .with_offsets = true,
                                           .adapt = adapt()}));
  for (const auto& loss : whole.losses)
    losses_.push_back(fmt::format("the chat template does not show {}: {}",
                                  chat::name_of(loss.part), stages::describe(loss)));
  const auto tokens = static_cast<int64_t>(whole.input_ids.size());
  const auto& limit = encoding_.length();
  stages::ExcessCounts counts;
  auto rows = stages::fit(std::move(whole), limit, counts);
  if (counts.rows == 0) return rows;
  remark_ = fmt::format("{} tokens, longer than --max-length {}: ", format_count(tokens),
                        format_count(limit.max_length));
  switch (limit.excess) {
    case stages::Excess::kDrop:
      remark_ += "left out";
      break;
    case stages::Excess::kTruncate:
      remark_ += fmt::format("{} cut at the end", format_count(counts.tokens_left_out));
      break;
    case stages::Excess::kSplit:
      remark_ += fmt::format("split into {} row{}", counts.pieces, counts.pieces == 1 ? "" : "s");
      if (counts.pieces_left_out > 0)
        remark_ += fmt::format(", without {} with nothing to learn", counts.pieces_left_out);
      break;
  }
  return rows;
}

Result<> ExampleFlags::load_messages() {
  std::ostringstream text;
  if (messages_ == "-") {
    text << std::cin.rdbuf();
  } else {
    std::ifstream file(messages_, std::ios::binary);
    if (!file) return not_found(fmt::format("cannot read {}", messages_));
    text << file.rdbuf();
  }
  const std::string what = messages_ == "-" ? "stdin" : messages_;
  LORRY_ASSIGN(Json json, parse_json(text.str(), what));
  if (json.is_object() && json.contains("messages")) {
    if (json.contains("tools")) example_.tools = json["tools"];
    json = Json(json["messages"]);
  }
  if (!json.is_array())
    return invalid_input(
        fmt::format("{} is neither a list of messages nor {{\"messages\": [...]}}", what));
  example_.messages = std::move(json);
  return {};
}

Result<Json> ExampleFlags::choose_dataset(const store::Bucket& bucket) {
  const bool given = !dataset_.empty();
  LORRY_ASSIGN(dataset_,
               inspect::choose(bucket, "standardized", dataset_, "data set", "--dataset"));
  if (!given) log::info("data set: {}", dataset_);
  LORRY_ASSIGN(auto info, bucket.read_info(store::standardized_dir(dataset_)));
  return info ? *std::move(info) : Json::object();
}

Result<> ExampleFlags::load_row(const store::Bucket& bucket, const Json& info) {
  const std::string dir = store::standardized_dir(dataset_);
  const int64_t last = info.value("count", int64_t{-1});
  int64_t row = row_;
  for (int64_t shard = 0; shard <= last; ++shard) {
    LORRY_ASSIGN(const auto reader, data::ShardReader::open(bucket, store::shard_dir(dir, shard)));
    if (row >= reader->rows()) {
      row -= reader->rows();
      continue;
    }
    const auto [batch, at] = reader->locate(row);
    auto example = stages::example_from_row(data::row_to_json(*batch, at));
    if (!example.ok()) return example.error().with_context(fmt::format("{} row {}", dir, row_));
    example_ = *std::move(example);
    return {};
  }
  return usage_error(fmt::format("--row {}: {} has {} rows", row_, dir, row_ - row));
}

}  // namespace lorry::cli
