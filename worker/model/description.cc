#include "worker/model/description.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace ballast {
namespace {

using Json = nlohmann::json;

constexpr int kFormat = 1;
constexpr int64_t kElementsMax = int64_t{1} << 40;  // of a tensor or of a row of a column
constexpr size_t kColumnsMax = 1024;
constexpr size_t kNameBytesMax = 1024;

absl::Status Bad(absl::string_view what) { return absl::InvalidArgumentError(absl::StrCat("model description: ", what)); }

absl::StatusOr<std::string> Text(const Json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_string()) return Bad(absl::StrCat("\"", key, "\" must be a string"));
  const std::string text = it->get<std::string>();
  if (text.empty() || text.size() > kNameBytesMax)
    return Bad(absl::StrCat("\"", key, "\" is empty or longer than ", kNameBytesMax, " bytes"));
  return text;
}

absl::StatusOr<std::vector<int64_t>> Shape(const Json& object, absl::string_view of) {
  const auto it = object.find("shape");
  if (it == object.end() || !it->is_array()) return Bad(absl::StrCat("shape of ", of, " must be a list"));
  std::vector<int64_t> shape;
  int64_t elements = 1;
  for (const Json& d : *it) {
    if (!d.is_number_integer() || d.get<int64_t>() < 0) return Bad(absl::StrCat("shape of ", of, " must hold integers of at least 0"));
    const int64_t size = d.get<int64_t>();
    if (size > 0 && elements > kElementsMax / size) return Bad(absl::StrCat(of, " has more than 2^40 elements"));
    elements *= size;
    shape.push_back(size);
  }
  return shape;
}

absl::StatusOr<bool> Flag(const Json& object, const char* key, bool absent) {
  const auto it = object.find(key);
  if (it == object.end()) return absent;
  if (!it->is_boolean()) return Bad(absl::StrCat("\"", key, "\" must be true or false"));
  return it->get<bool>();
}

absl::StatusOr<std::string> KnownDType(const Json& object, absl::string_view of) {
  auto dtype = Text(object, "dtype");
  if (!dtype.ok()) return dtype.status();
  if (DTypeBytes(*dtype) == 0) return Bad(absl::StrCat(of, " has dtype ", *dtype, ", which is not supported"));
  return dtype;
}

absl::StatusOr<ColumnSpec> Column(const Json& object) {
  if (!object.is_object()) return Bad("a column must be an object");
  ColumnSpec column;
  auto name = Text(object, "name");
  if (!name.ok()) return name.status();
  column.name = *std::move(name);
  auto dtype = KnownDType(object, column.name);
  if (!dtype.ok()) return dtype.status();
  column.dtype = *std::move(dtype);
  auto shape = Shape(object, column.name);
  if (!shape.ok()) return shape.status();
  column.shape = *std::move(shape);
  return column;
}

absl::StatusOr<std::vector<ColumnSpec>> Columns(const Json& json, const char* key) {
  const auto it = json.find(key);
  if (it == json.end() || !it->is_array() || it->empty() || it->size() > kColumnsMax) {
    return Bad(absl::StrCat("\"", key, "\" must list 1 to ", kColumnsMax, " columns"));
  }
  std::vector<ColumnSpec> columns;
  absl::flat_hash_set<std::string> names;
  for (const Json& object : *it) {
    auto column = Column(object);
    if (!column.ok()) return column.status();
    if (!names.insert(column->name).second) return Bad(absl::StrCat("two of \"", key, "\" are named ", column->name));
    columns.push_back(*std::move(column));
  }
  return columns;
}

absl::StatusOr<UpdateRule> Rule(const Json& object) {
  auto text = Text(object, "rule");
  if (!text.ok()) return text.status();
  if (*text == "OPT") return UpdateRule::kOpt;
  if (*text == "SUM") return UpdateRule::kSum;
  if (*text == "MEAN") return UpdateRule::kMean;
  if (*text == "SET") return UpdateRule::kSet;
  return Bad(absl::StrCat("rule ", *text, " is none of OPT, SUM, MEAN, SET"));
}

bool IsFloat(absl::string_view dtype) { return absl::StartsWith(dtype, "float") || dtype == "bfloat16"; }

absl::StatusOr<ModelTensor> Tensor(const Json& object) {
  if (!object.is_object()) return Bad("a tensor must be an object");
  ModelTensor tensor;
  auto name = Text(object, "name");
  if (!name.ok()) return name.status();
  tensor.name = *std::move(name);
  auto dtype = KnownDType(object, tensor.name);
  if (!dtype.ok()) return dtype.status();
  tensor.dtype = *std::move(dtype);
  auto shape = Shape(object, tensor.name);
  if (!shape.ok()) return shape.status();
  tensor.shape = *std::move(shape);
  auto rule = Rule(object);
  if (!rule.ok()) return rule.status();
  tensor.rule = *rule;
  if (!IsFloat(tensor.dtype) && (tensor.rule == UpdateRule::kOpt || tensor.rule == UpdateRule::kMean)) {
    return Bad(absl::StrCat(tensor.name, " has integers: its rule must be SET or SUM"));
  }
  auto persistent = Flag(object, "persistent", true);
  if (!persistent.ok()) return persistent.status();
  tensor.persistent = *persistent;
  auto requires_grad = Flag(object, "requires_grad", tensor.rule == UpdateRule::kOpt);
  if (!requires_grad.ok()) return requires_grad.status();
  tensor.requires_grad = *requires_grad;
  if (const auto it = object.find("aliases"); it != object.end()) {
    if (!it->is_array()) return Bad(absl::StrCat("aliases of ", tensor.name, " must be a list"));
    for (const Json& alias : *it) {
      if (!alias.is_string()) return Bad(absl::StrCat("aliases of ", tensor.name, " must be strings"));
      tensor.aliases.push_back(alias.get<std::string>());
      if (tensor.aliases.back().empty() || tensor.aliases.back().size() > kNameBytesMax) {
        return Bad(absl::StrCat("an alias of ", tensor.name, " is empty or longer than ", kNameBytesMax, " bytes"));
      }
    }
  }
  return tensor;
}

absl::StatusOr<std::vector<ModelTensor>> Tensors(const Json& json) {
  const auto it = json.find("tensors");
  if (it == json.end() || !it->is_array() || it->size() > kTensorsMax) {
    return Bad(absl::StrCat("\"tensors\" must list at most ", kTensorsMax, " tensors"));
  }
  std::vector<ModelTensor> tensors;
  absl::flat_hash_set<std::string> names;
  for (const Json& object : *it) {
    auto tensor = Tensor(object);
    if (!tensor.ok()) return tensor.status();
    std::vector<std::string> all = tensor->aliases;
    all.push_back(tensor->name);
    for (const std::string& name : all) {
      if (!names.insert(name).second) return Bad(absl::StrCat("the name ", name, " is used twice"));
    }
    tensors.push_back(*std::move(tensor));
  }
  return tensors;
}

absl::Status CheckLoss(const ModelDescription& d) {
  if (absl::StartsWith(d.loss, "method:")) {
    return d.LossMethod().empty() ? Bad("loss \"method:\" without a name") : absl::OkStatus();
  }
  if (d.loss != "cross_entropy" && d.loss != "bce_with_logits" && d.loss != "mse") {
    return Bad(absl::StrCat("loss \"", d.loss, "\" is none of cross_entropy, bce_with_logits, mse, method:<name>"));
  }
  return d.label.has_value() ? absl::OkStatus() : Bad(absl::StrCat("loss ", d.loss, " needs a label"));
}

absl::StatusOr<ModelDescription> FromJson(const Json& json) {
  if (!json.is_object()) return Bad("not a JSON object");
  const auto format = json.find("format");
  if (format == json.end() || !format->is_number_integer() || format->get<int64_t>() != kFormat) {
    return Bad(absl::StrCat("format must be ", kFormat, ": export the model again with a ballast of this release"));
  }
  ModelDescription d;
  auto inputs = Columns(json, "inputs");
  if (!inputs.ok()) return inputs.status();
  d.inputs = *std::move(inputs);
  auto outputs = Columns(json, "outputs");
  if (!outputs.ok()) return outputs.status();
  d.outputs = *std::move(outputs);
  if (const auto label = json.find("label"); label != json.end() && !label->is_null()) {
    auto column = Column(*label);
    if (!column.ok()) return column.status();
    d.label = *std::move(column);
  }
  auto loss = Text(json, "loss");
  if (!loss.ok()) return loss.status();
  d.loss = *std::move(loss);
  if (absl::Status status = CheckLoss(d); !status.ok()) return status;
  auto tensors = Tensors(json);
  if (!tensors.ok()) return tensors.status();
  d.tensors = *std::move(tensors);
  return d;
}

}  // namespace

uint64_t DTypeBytes(std::string_view torch_dtype) {
  static constexpr std::pair<std::string_view, uint64_t> kBytes[] = {{"bool", 1},    {"uint8", 1},  {"int8", 1},    {"int16", 2},
                                                                     {"int32", 4},   {"int64", 8},  {"float16", 2}, {"bfloat16", 2},
                                                                     {"float32", 4}, {"float64", 8}};
  for (const auto& [name, bytes] : kBytes) {
    if (name == torch_dtype) return bytes;
  }
  return 0;
}

uint64_t ColumnSpec::RowBytes() const {
  uint64_t n = DTypeBytes(dtype);
  for (int64_t d : shape) n *= static_cast<uint64_t>(d);
  return n;
}

std::string ModelDescription::LossMethod() const {
  absl::string_view name = loss;
  return absl::ConsumePrefix(&name, "method:") ? std::string(name) : std::string();
}

absl::StatusOr<ModelDescription> ParseDescription(std::string_view json) {
  if (json.size() > kDescriptionBytesMax) return Bad(absl::StrCat("longer than ", kDescriptionBytesMax, " bytes"));
  const Json parsed = Json::parse(json.begin(), json.end(), nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) return Bad("not valid JSON");
  return FromJson(parsed);
}

std::vector<TensorSpec> ToTensorSpecs(const ModelDescription& description) {
  std::vector<TensorSpec> specs;
  for (const ModelTensor& tensor : description.tensors) {
    TensorSpec spec;
    spec.name = tensor.name;
    spec.shape = tensor.shape;
    spec.dtype = IsFloat(tensor.dtype) ? DType::kF32 : DType::kI64;
    spec.rule = tensor.rule;
    spec.aliases = tensor.aliases;
    spec.source_dtype = tensor.dtype;
    spec.persistent = tensor.persistent;
    specs.push_back(std::move(spec));
  }
  return specs;
}

}  // namespace ballast
