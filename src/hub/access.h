// Where the Hub is, and with which token.
#pragma once

#include <string>

namespace lorry::hub {

struct Access {
  std::string endpoint = "https://huggingface.co";  ///< without a slash at its end
  std::string token;                                ///< empty: none; never in messages
  std::string token_origin;                         ///< "HF_TOKEN", or the file it was read from
};

/// From the environment, as `huggingface_hub` reads it: HF_ENDPOINT; HF_TOKEN or
/// HUGGING_FACE_HUB_TOKEN, else the file HF_TOKEN_PATH, else `token` in HF_HOME (by default
/// ~/.cache/huggingface), unless HF_HUB_DISABLE_IMPLICIT_TOKEN is set.
Access find_access();

}  // namespace lorry::hub
