#include "data/text_format.h"
namespace lorry::data {
std::unique_ptr<Reader> make_columnar_reader(std::vector<SourceFile>, ReadOptions) {
  return nullptr;
}
}  // namespace lorry::data
