#include "worker/model/torch_convert.h"

#include <c10/util/Exception.h>

#include <bit>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace ballast {
namespace {

constexpr std::pair<std::string_view, at::ScalarType> kTypes[] = {
    {"bool", at::kBool},  {"uint8", at::kByte},   {"int8", at::kChar},         {"int16", at::kShort},   {"int32", at::kInt},
    {"int64", at::kLong}, {"float16", at::kHalf}, {"bfloat16", at::kBFloat16}, {"float32", at::kFloat}, {"float64", at::kDouble}};

constexpr size_t kReasonBytesMax = 600;

}  // namespace

at::ScalarType ScalarTypeOf(std::string_view torch_dtype) {
  for (const auto& [name, type] : kTypes) {
    if (name == torch_dtype) return type;
  }
  TORCH_CHECK(false, "dtype ", torch_dtype, " is not supported");
}

std::string NameOf(at::ScalarType type) {
  for (const auto& [name, known] : kTypes) {
    if (known == type) return std::string(name);
  }
  return c10::toString(type);
}

absl::StatusOr<at::Tensor> ColumnTensor(const BatchView& batch, const ColumnSpec& spec) {
  const ColumnView* column = nullptr;
  for (const ColumnView& c : batch.columns) {
    if (c.name == spec.name) column = &c;
  }
  if (column == nullptr) return absl::InvalidArgumentError(absl::StrCat("column ", spec.name, " is missing"));
  const uint64_t expected = batch.rows * spec.RowBytes();
  if (column->data.size() != expected) {
    return absl::InvalidArgumentError(absl::StrCat("column ", spec.name, " has ", column->data.size(), " bytes, ", batch.rows, " rows of ",
                                                   spec.dtype, " need ", expected));
  }
  std::vector<int64_t> shape = {batch.rows};
  shape.insert(shape.end(), spec.shape.begin(), spec.shape.end());
  const bool is_bool = spec.dtype == "bool";  // bytes other than 0 and 1 would be undefined in a bool tensor
  at::Tensor tensor = at::empty(shape, is_bool ? at::kByte : ScalarTypeOf(spec.dtype));
  if (expected > 0) std::memcpy(tensor.data_ptr(), column->data.data(), expected);
  return is_bool ? tensor.ne(0) : tensor;
}

absl::StatusOr<std::vector<at::Tensor>> OutputTensors(const c10::IValue& value, absl::Span<const ColumnSpec> outputs) {
  std::vector<at::Tensor> tensors;
  if (value.isTensor()) {
    tensors.push_back(value.toTensor());
  } else if (value.isTuple()) {
    for (const c10::IValue& element : value.toTupleRef().elements()) tensors.push_back(element.toTensor());
  } else if (value.isTensorList()) {
    for (const at::Tensor& element : value.toTensorVector()) tensors.push_back(element);
  } else if (value.isGenericDict()) {
    const auto dict = value.toGenericDict();
    for (const ColumnSpec& spec : outputs) {
      const auto it = dict.find(spec.name);
      if (it == dict.end()) return absl::InvalidArgumentError(absl::StrCat("forward returned no output named ", spec.name));
      tensors.push_back(it->value().toTensor());
    }
  } else {
    return absl::InvalidArgumentError(absl::StrCat("forward returned ", value.tagKind(), ": it must return tensors"));
  }
  if (tensors.size() != outputs.size()) {
    return absl::InvalidArgumentError(absl::StrCat("forward returned ", tensors.size(), " tensors, described are ", outputs.size()));
  }
  return tensors;
}

OutputTensor ToBytes(const ColumnSpec& spec, const at::Tensor& tensor) {
  const at::Tensor dense = tensor.detach().to(at::kCPU).contiguous();
  OutputTensor out;
  out.name = spec.name;
  out.dtype = NameOf(dense.scalar_type());
  out.shape = dense.sizes().vec();
  out.data.assign(static_cast<const char*>(dense.const_data_ptr()), dense.nbytes());
  return out;
}

at::Tensor DenseF32(const at::Tensor& tensor) {
  return (tensor.layout() == at::kStrided ? tensor : tensor.to_dense()).to(at::kFloat).contiguous();
}

absl::Span<const float> SpanF32(const at::Tensor& dense) { return {dense.const_data_ptr<float>(), static_cast<size_t>(dense.numel())}; }

bool AllFinite(absl::Span<const float> values) {
  constexpr uint32_t kExponent = 0x7f800000u;  // all ones: infinity or NaN
  uint32_t bad = 0;
  for (float v : values) bad |= (std::bit_cast<uint32_t>(v) & kExponent) == kExponent;
  return bad == 0;
}

absl::Status TorchStatus(const std::exception& e) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&e);
  absl::string_view text = torch_error != nullptr ? torch_error->what_without_backtrace() : e.what();
  // The interpreter puts the module's source before the message, under the exception's Python name, and sometimes C++ frames after it.
  for (absl::string_view name : {"\nRuntimeError: ", "\nbuiltins."}) {
    if (const size_t at = text.rfind(name); at != absl::string_view::npos) text.remove_prefix(at + name.size());
  }
  if (const size_t at = text.find("\nException raised from"); at != absl::string_view::npos) text = text.substr(0, at);
  text = absl::StripAsciiWhitespace(text);
  return absl::InvalidArgumentError(absl::StrCat("torch: ", text.substr(0, kReasonBytesMax)));
}

}  // namespace ballast
