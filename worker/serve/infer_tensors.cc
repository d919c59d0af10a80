#include "worker/serve/infer_tensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/status.h"
#include "core/text.h"

namespace ballast {
namespace {

using Input = inference::ModelInferRequest::InferInputTensor;
using Contents = inference::InferTensorContents;

constexpr std::pair<std::string_view, const char*> kDatatypes[] = {
    {"bool", "BOOL"},   {"uint8", "UINT8"},  {"int8", "INT8"},     {"int16", "INT16"},  {"int32", "INT32"},
    {"int64", "INT64"}, {"float16", "FP16"}, {"bfloat16", "BF16"}, {"float32", "FP32"}, {"float64", "FP64"}};

absl::Status Bad(absl::string_view what) { return WithReason(absl::InvalidArgumentError(what), "BAD_INPUT"); }

std::string ShapeText(const std::vector<int64_t>& row) {
  return absl::StrCat("[-1", row.empty() ? "" : ", ", absl::StrJoin(row, ", "), "]");
}

// The rows of an input whose datatype and shape fit.
absl::StatusOr<uint32_t> CheckHead(const Input& input, const ColumnSpec& spec) {
  if (input.datatype() != DatatypeOf(spec.dtype)) {
    return Bad(absl::StrCat("input ", spec.name, ": datatype ", Excerpt(input.datatype()), ", expected ", DatatypeOf(spec.dtype)));
  }
  const std::vector<int64_t> shape(input.shape().begin(), input.shape().end());
  if (shape.empty() || !std::equal(shape.begin() + 1, shape.end(), spec.shape.begin(), spec.shape.end())) {
    return Bad(absl::StrCat("input ", spec.name, ": shape [", Excerpt(absl::StrJoin(shape, ", ")), "], expected ", ShapeText(spec.shape)));
  }
  if (shape[0] < 1 || shape[0] > std::numeric_limits<int32_t>::max()) {
    return Bad(absl::StrCat("input ", spec.name, ": ", shape[0], " rows, expected at least 1"));
  }
  return static_cast<uint32_t>(shape[0]);
}

template <typename To, typename From>
bool Append(const From& values, std::string* out) {
  out->resize(static_cast<size_t>(values.size()) * sizeof(To));
  for (int i = 0; i < values.size(); ++i) {
    const To value = static_cast<To>(values.Get(i));
    if (value != values.Get(i)) return false;  // does not fit
    std::memcpy(out->data() + static_cast<size_t>(i) * sizeof(To), &value, sizeof(To));
  }
  return true;
}

// Typed contents as dense bytes.
absl::Status Typed(const Contents& c, const ColumnSpec& spec, std::string* out) {
  bool fits = true;
  if (spec.dtype == "bool")
    fits = Append<uint8_t>(c.bool_contents(), out);
  else if (spec.dtype == "int8")
    fits = Append<int8_t>(c.int_contents(), out);
  else if (spec.dtype == "int16")
    fits = Append<int16_t>(c.int_contents(), out);
  else if (spec.dtype == "int32")
    fits = Append<int32_t>(c.int_contents(), out);
  else if (spec.dtype == "int64")
    fits = Append<int64_t>(c.int64_contents(), out);
  else if (spec.dtype == "uint8")
    fits = Append<uint8_t>(c.uint_contents(), out);
  else if (spec.dtype == "float32")
    out->assign(reinterpret_cast<const char*>(c.fp32_contents().data()), 4 * static_cast<size_t>(c.fp32_contents_size()));
  else if (spec.dtype == "float64")
    out->assign(reinterpret_cast<const char*>(c.fp64_contents().data()), 8 * static_cast<size_t>(c.fp64_contents_size()));
  else
    return Bad(absl::StrCat("input ", spec.name, ": ", DatatypeOf(spec.dtype), " only travels in raw_input_contents"));
  return fits ? absl::OkStatus() : Bad(absl::StrCat("input ", spec.name, ": a value does not fit ", DatatypeOf(spec.dtype)));
}

// The bytes of input `index`, wherever they are.
absl::StatusOr<std::string_view> Data(const inference::ModelInferRequest& request, int index, const ColumnSpec& spec,
                                      DecodedInputs* decoded) {
  const Input& input = request.inputs(index);
  if (request.raw_input_contents_size() > 0) {
    if (input.has_contents()) return Bad(absl::StrCat("input ", spec.name, ": both typed contents and raw_input_contents"));
    return std::string_view(request.raw_input_contents(index));
  }
  std::string& bytes = decoded->owned.emplace_back();
  if (absl::Status status = Typed(input.contents(), spec, &bytes); !status.ok()) return status;
  return std::string_view(bytes);
}

absl::Status DecodeInput(const inference::ModelInferRequest& request, int index, const ColumnSpec& spec, DecodedInputs* decoded) {
  const auto rows = CheckHead(request.inputs(index), spec);
  if (!rows.ok()) return rows.status();
  if (decoded->batch.rows == 0) decoded->batch.rows = *rows;
  if (decoded->batch.rows != *rows)
    return Bad(absl::StrCat("input ", spec.name, ": ", *rows, " rows, another input has ", decoded->batch.rows));
  const auto data = Data(request, index, spec, decoded);
  if (!data.ok()) return data.status();
  const uint64_t row_bytes = spec.RowBytes();
  // By division: the product of a claimed number of rows may overflow.
  const bool whole = row_bytes == 0 ? data->empty() : data->size() % row_bytes == 0 && data->size() / row_bytes == *rows;
  if (!whole) {
    return Bad(absl::StrCat("input ", spec.name, ": ", data->size(), " bytes, expected ", *rows, " rows of ", row_bytes, " bytes"));
  }
  decoded->batch.columns.push_back({spec.name, *data});
  return absl::OkStatus();
}

}  // namespace

std::string DatatypeOf(std::string_view torch_dtype) {
  for (const auto& [name, datatype] : kDatatypes) {
    if (name == torch_dtype) return datatype;
  }
  return "";
}

absl::StatusOr<DecodedInputs> DecodeInputs(const inference::ModelInferRequest& request, const ModelDescription& description) {
  if (request.raw_input_contents_size() > 0 && request.raw_input_contents_size() != request.inputs_size()) {
    return Bad(absl::StrCat(request.inputs_size(), " inputs with ", request.raw_input_contents_size(),
                            " raw_input_contents: one for each is needed"));
  }
  DecodedInputs decoded;
  std::set<std::string> known;
  for (const ColumnSpec& spec : description.inputs) {
    known.insert(spec.name);
    int index = -1;
    for (int i = 0; i < request.inputs_size(); ++i) {
      if (request.inputs(i).name() != spec.name) continue;
      if (index >= 0) return Bad(absl::StrCat("input ", spec.name, " is given twice"));
      index = i;
    }
    if (index < 0)
      return Bad(absl::StrCat("input ", spec.name, " is missing: expected ", DatatypeOf(spec.dtype), " ", ShapeText(spec.shape)));
    if (absl::Status status = DecodeInput(request, index, spec, &decoded); !status.ok()) return status;
  }
  for (const Input& input : request.inputs()) {
    if (!known.contains(input.name()))
      return Bad(absl::StrCat("the model has no input ", Excerpt(input.name()), ", it has ", Excerpt(absl::StrJoin(known, ", "))));
  }
  return decoded;
}

absl::Status EncodeOutputs(const inference::ModelInferRequest& request, std::vector<OutputTensor> outputs,
                           inference::ModelInferResponse* response) {
  std::vector<std::string> names;
  std::set<std::string_view> asked;
  for (const auto& requested : request.outputs()) {
    // A request of a megabyte could ask for one output of a megabyte a hundred thousand times.
    if (!asked.insert(requested.name()).second) return Bad(absl::StrCat("output ", Excerpt(requested.name()), " is asked for twice"));
    names.push_back(requested.name());
  }
  if (names.empty()) {
    for (const OutputTensor& output : outputs) names.push_back(output.name);
  }
  for (const std::string& name : names) {
    const auto it = std::find_if(outputs.begin(), outputs.end(), [&](const OutputTensor& output) { return output.name == name; });
    if (it == outputs.end()) return Bad(absl::StrCat("the model has no output ", Excerpt(name)));
    auto* tensor = response->add_outputs();
    tensor->set_name(it->name);
    tensor->set_datatype(DatatypeOf(it->dtype));
    tensor->mutable_shape()->Add(it->shape.begin(), it->shape.end());
    response->add_raw_output_contents(it->data);
  }
  return absl::OkStatus();
}

uint64_t OutputBytes(const std::vector<OutputTensor>& outputs) {
  uint64_t bytes = 0;
  for (const OutputTensor& output : outputs) bytes += output.data.size();
  return bytes;
}

}  // namespace ballast
