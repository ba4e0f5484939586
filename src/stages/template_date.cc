#include "stages/template_date.h"

#include <atomic>

#include "base/log.h"

namespace lorry::stages {

void report_unused_date(const chat::Chat& chat, const std::string& model, const std::string& date) {
  static std::atomic<bool> said{false};
  if (date.empty() || chat.uses_date() || said.exchange(true)) return;
  log::warn("--date {}: the chat template of {} writes no day, so it changes nothing", date, model);
}

}  // namespace lorry::stages
