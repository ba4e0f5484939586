// Which example `render` and `tokenize` show: a row of the bucket, messages from a file, or a text.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "chat/chat.h"
#include "cli/command.h"
#include "cli/encoding_flags.h"
#include "stages/messages.h"

namespace lorry::cli {

class ExampleFlags {
 public:
  void declare(Flags& flags);
  /// Reads the model's text side and the example. Without --messages and --text: row --row of the
  /// data set, counted over all shards.
  Result<> load(const Context& context);

  const chat::Chat& chat() const { return *chat_; }
  const stages::Example& example() const { return example_; }
  /// A row is shown as it is trained on, the user's own messages as `transformers` renders them.
  chat::Adapt adapt() const {
    return messages_.empty() ? chat::Adapt::kWhereItFails : chat::Adapt::kNever;
  }

  /// The rows that pretokenize would make of the example, with offsets, as --train-on, --max-length
  /// and --excess-length say: none, one or many.
  Result<std::vector<chat::EncodedExample>> encode();
  /// What pretokenize would say about it: "longer than --max-length ..."; empty if nothing.
  const std::string& remark() const { return remark_; }
  /// What of it the template does not show, a sentence each.
  const std::vector<std::string>& losses() const { return losses_; }

 private:
  Result<> check_sources(const Flags& flags) const;
  /// The data set's info.json.
  Result<Json> choose_dataset(const store::Bucket& bucket);
  Result<> load_row(const store::Bucket& bucket, const Json& info);
  Result<> load_messages();

  std::string model_, dataset_, messages_, text_;
  int64_t row_ = 0;
  std::shared_ptr<const chat::Chat> chat_;
  stages::Example example_;
  EncodingFlags encoding_;
  TemplateFlags template_;
  std::string remark_;
  std::vector<std::string> losses_;
};

}  // namespace lorry::cli
