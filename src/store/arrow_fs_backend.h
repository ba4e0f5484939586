// Google Cloud Storage and Azure Blob Storage, through Arrow's file systems.
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"
#include "store/backend.h"

namespace lorry::store {

/// Opens gs://NAME[/prefix], with `rest` what follows the "//". Credentials are Google's default
/// ones (GOOGLE_APPLICATION_CREDENTIALS, gcloud's login, the machine's account);
/// LORRY_GS_ANONYMOUS=1 uses none. CLOUD_STORAGE_EMULATOR_ENDPOINT names an emulator.
Result<std::unique_ptr<Backend>> open_gs_backend(std::string_view rest);

/// Opens az://CONTAINER[/prefix]. The account is AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or
/// AZURE_STORAGE_SAS_TOKEN, else Azure's default credentials; AZURE_STORAGE_CONNECTION_STRING says
/// all of it at once.
Result<std::unique_ptr<Backend>> open_az_backend(std::string_view rest);

}  // namespace lorry::store
