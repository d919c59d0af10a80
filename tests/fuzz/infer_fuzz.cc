// worker/serve: requests of KServe clients as tensors, and the answer. What passes has the bytes that the model reads; an answer is never
// larger than what the model said.
#include <google/protobuf/stubs/logging.h>

#include "tests/fuzz/input.h"
#include "worker/serve/infer_tensors.h"

namespace ballast {
namespace {

constexpr const char* kInputs[][3] = {
    {R"({"name":"tokens","dtype":"int32","shape":[8]})", R"({"name":"x","dtype":"float32","shape":[2,3]})",
     R"({"name":"flag","dtype":"bool","shape":[]})"},
    {R"({"name":"a","dtype":"int8","shape":[]})", R"({"name":"b","dtype":"bfloat16","shape":[2]})",
     R"({"name":"none","dtype":"float64","shape":[0]})"},
    {R"({"name":"u","dtype":"uint8","shape":[1]})", R"({"name":"i","dtype":"int64","shape":[]})",
     R"({"name":"d","dtype":"float64","shape":[]})"},
};

const ModelDescription& Description(size_t which) {
  static const std::vector<ModelDescription> all = [] {
    std::vector<ModelDescription> made;
    for (const auto& inputs : kInputs) {
      const std::string json = std::string(R"({"format":1,"inputs":[)") + inputs[0] + "," + inputs[1] + "," + inputs[2] +
                               R"(],"outputs":[{"name":"y","dtype":"float32","shape":[]}],"loss":"method:loss","tensors":[]})";
      auto parsed = ParseDescription(json);
      FUZZ_CHECK(parsed.ok());
      made.push_back(*std::move(parsed));
    }
    return made;
  }();
  return all[which % all.size()];
}

void Run(fuzz::Input& in) {
  const ModelDescription& description = Description(in.Byte());
  inference::ModelInferRequest request;
  if (!request.ParseFromArray(in.rest().data(), static_cast<int>(in.rest().size()))) return;
  const auto inputs = DecodeInputs(request, description);
  if (inputs.ok()) {
    FUZZ_CHECK(inputs->batch.rows >= 1 && inputs->batch.columns.size() == description.inputs.size());
    for (size_t i = 0; i < description.inputs.size(); ++i) {
      FUZZ_CHECK(inputs->batch.columns[i].name == description.inputs[i].name);
      FUZZ_CHECK(inputs->batch.columns[i].data.size() == inputs->batch.rows * description.inputs[i].RowBytes());
    }
  } else {
    fuzz::CheckRefusal(inputs.status());
  }

  std::vector<OutputTensor> outputs = {{"y", "float32", {100}, std::string(400, 'y')}, {"z", "int64", {100}, std::string(800, 'z')}};
  inference::ModelInferResponse response;
  const absl::Status encoded = EncodeOutputs(request, outputs, &response);
  if (!encoded.ok()) return fuzz::CheckRefusal(encoded);
  FUZZ_CHECK(response.ByteSizeLong() <= OutputBytes(outputs) + 256);
}

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto quiet = google::protobuf::SetLogHandler(nullptr);
  (void)quiet;
  ballast::fuzz::Input in(data, size);
  ballast::Run(in);
  return 0;
}
