#include "tools/ballastctl/safetensors_writer.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace ballast::ctl {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct Dtype {
  const char* torch;
  const char* name;
  size_t bytes;
};
constexpr Dtype kDtypes[] = {{"float32", "F32", 4}, {"float64", "F64", 8}, {"float16", "F16", 2}, {"bfloat16", "BF16", 2},
                             {"int64", "I64", 8},   {"int32", "I32", 4},   {"int16", "I16", 2},   {"int8", "I8", 1},
                             {"uint8", "U8", 1},    {"bool", "BOOL", 1}};

const Dtype* FindDtype(const std::string& torch) {
  for (const Dtype& d : kDtypes) {
    if (torch == d.torch) return &d;
  }
  return nullptr;
}

// Round to nearest even; the values came from bf16 or fp16 parameters that were trained in fp32.
uint16_t ToBf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Not by way of _Float16, which clang 14 does not have.
uint16_t ToFp16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff));  // NaN
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);                               // rounds to infinity
  if (magnitude < 0x38800000) return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(std::fabs(value) * 0x1p24f)));
  return static_cast<uint16_t>(sign | ((magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000) >> 13));
}

template <typename From, typename To, typename Convert>
std::string ConvertAll(const std::string& values, Convert convert) {
  std::string out(values.size() / sizeof(From) * sizeof(To), '\0');
  for (size_t i = 0; i < values.size() / sizeof(From); ++i) {
    From from;
    std::memcpy(&from, values.data() + i * sizeof(From), sizeof from);
    const To to = convert(from);
    std::memcpy(out.data() + i * sizeof(To), &to, sizeof to);
  }
  return out;
}

template <typename To>
std::string Cast(const std::string& values) {
  return ConvertAll<int64_t, To>(values, [](int64_t v) { return static_cast<To>(v); });
}

std::string Converted(const std::string& torch, const std::string& values) {
  if (torch == "float64") return ConvertAll<float, double>(values, [](float v) { return static_cast<double>(v); });
  if (torch == "bfloat16") return ConvertAll<float, uint16_t>(values, ToBf16);
  if (torch == "float16") return ConvertAll<float, uint16_t>(values, ToFp16);
  if (torch == "int32") return Cast<int32_t>(values);
  if (torch == "int16") return Cast<int16_t>(values);
  if (torch == "int8") return Cast<int8_t>(values);
  if (torch == "uint8") return Cast<uint8_t>(values);
  if (torch == "bool") return ConvertAll<int64_t, uint8_t>(values, [](int64_t v) { return static_cast<uint8_t>(v != 0); });
  return values;
}

uint64_t ExportedBytes(const ExportTensor& tensor, const Dtype& dtype) {
  uint64_t n = dtype.bytes;
  for (int64_t d : tensor.shape) n *= static_cast<uint64_t>(d);
  return n;
}

absl::Status WriteFile(const fs::path& path, const std::vector<const ExportTensor*>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  Json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const ExportTensor* t : tensors) {
    const Dtype& dtype = *FindDtype(t->source_dtype);
    const uint64_t end = offset + ExportedBytes(*t, dtype);
    header[t->name] = {{"dtype", dtype.name}, {"shape", t->shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // the format wants the data aligned
  const uint64_t length = text.size();
  const fs::path part = path.string() + ".part";
  std::ofstream out(part, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&length), sizeof length);
  out << text;
  for (const ExportTensor* t : tensors) out << Converted(t->source_dtype, *t->values);
  out.close();
  std::error_code error;
  if (out) fs::rename(part, path, error);
  if (!out || error) return absl::PermissionDeniedError(absl::StrCat("cannot write ", path.string(), error ? ": " + error.message() : ""));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> WriteSafetensors(const std::string& dir, const std::vector<ExportTensor>& tensors,
                                                          const std::map<std::string, std::string>& metadata, uint64_t file_bytes_max) {
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) return absl::PermissionDeniedError(absl::StrCat(dir, ": ", error.message()));
  std::vector<std::vector<const ExportTensor*>> files(1);
  uint64_t bytes = 0, total = 0;
  std::set<std::string> names = {"__metadata__"};  // the format's own entry
  for (const ExportTensor& t : tensors) {
    if (!names.insert(t.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor \"", t.name, "\": a safetensors file holds each name once, and \"__metadata__\" not as a tensor"));
    }
    const Dtype* dtype = FindDtype(t.source_dtype);
    if (dtype == nullptr)
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", t.name, " has dtype ", t.source_dtype, ", which safetensors has no name for"));
    const uint64_t size = ExportedBytes(t, *dtype);
    if (!files.back().empty() && bytes + size > file_bytes_max) files.emplace_back(), bytes = 0;
    files.back().push_back(&t);
    bytes += size;
    total += size;
  }
  std::vector<std::string> written;
  Json weight_map;
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string name =
        files.size() == 1 ? "model.safetensors" : absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, files.size());
    if (absl::Status s = WriteFile(fs::path(dir) / name, files[i], metadata); !s.ok()) return s;
    for (const ExportTensor* t : files[i]) weight_map[t->name] = name;
    written.push_back((fs::path(dir) / name).string());
  }
  if (files.size() > 1) {
    const fs::path index = fs::path(dir) / "model.safetensors.index.json";
    std::ofstream(index) << Json{{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}}.dump(2) << "\n";
    written.push_back(index.string());
  }
  return written;
}

}  // namespace ballast::ctl
