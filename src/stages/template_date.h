// The day that chat templates may write.
#pragma once

#include <string>

#include "chat/chat.h"

namespace lorry::stages {

/// Says, once a process, that the day of --date changes nothing, if the templates write none.
/// `date`: as the flag has it; empty: it was not given.
void report_unused_date(const chat::Chat& chat, const std::string& model, const std::string& date);

}  // namespace lorry::stages
