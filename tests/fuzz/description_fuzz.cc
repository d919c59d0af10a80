// worker/model/description: the JSON of a model file, which anyone may have made.
#include "worker/model/description.h"

#include <set>

#include "tests/fuzz/input.h"

namespace ballast {
namespace {

void CheckColumn(const ColumnSpec& column) {
  FUZZ_CHECK(!column.name.empty() && DTypeBytes(column.dtype) > 0);
  uint64_t elements = 1;
  bool none = false;
  for (int64_t d : column.shape) {
    FUZZ_CHECK(d >= 0);
    none = none || d == 0;
    if (!none) elements *= static_cast<uint64_t>(d);
    FUZZ_CHECK(none || elements <= uint64_t{1} << 40);
  }
  FUZZ_CHECK(column.RowBytes() == (none ? 0 : elements * DTypeBytes(column.dtype)));
}

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ballast;
  const auto description = ParseDescription({reinterpret_cast<const char*>(data), size});
  if (!description.ok()) {
    fuzz::CheckRefusal(description.status());
    return 0;
  }
  FUZZ_CHECK(!description->inputs.empty() && !description->outputs.empty());
  for (const auto* columns : {&description->inputs, &description->outputs}) {
    for (const ColumnSpec& column : *columns) CheckColumn(column);
  }
  std::set<std::string> names;
  for (const TensorSpec& t : ToTensorSpecs(*description)) {
    FUZZ_CHECK(names.insert(t.name).second);
    for (const std::string& alias : t.aliases) FUZZ_CHECK(names.insert(alias).second);
    FUZZ_CHECK(t.dtype == DType::kF32 || t.rule == UpdateRule::kSet || t.rule == UpdateRule::kSum);
  }
  return 0;
}
