#include "worker/model/safetensors.h"

#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/text.h"

namespace ballast {
namespace {

using Json = nlohmann::json;

constexpr size_t kListedMax = 8;  // names in one error message
constexpr size_t kNameBytesMax = 1024;

absl::Status Bad(absl::string_view what) { return absl::InvalidArgumentError(absl::StrCat("safetensors file: ", what)); }

uint64_t ElementBytes(absl::string_view dtype) {
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "I8" || dtype == "U8" || dtype == "BOOL") return 1;
  return 0;
}

float HalfToFloat(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t exponent = (h >> 10) & 0x1f;
  const uint32_t mantissa = h & 0x3ff;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));  // infinity, NaN
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float subnormal = static_cast<float>(mantissa) * 0x1p-24f;
  return sign != 0 ? -subnormal : subnormal;
}

template <typename T>
T At(std::string_view data, uint64_t i) {  // host order is the file's: little-endian
  T value;
  std::memcpy(&value, data.data() + i * sizeof(T), sizeof(T));
  return value;
}

template <typename From, typename To>
void Convert(std::string_view data, absl::Span<To> out) {
  for (uint64_t i = 0; i < out.size(); ++i) out[i] = static_cast<To>(At<From>(data, i));
}

// False if the dtype is not one of floats.
bool Floats(const SafetensorsEntry& entry, absl::Span<float> out) {
  if (entry.dtype == "F32") {
    if (!out.empty()) std::memcpy(out.data(), entry.data.data(), entry.data.size());
  } else if (entry.dtype == "F64") {
    Convert<double>(entry.data, out);
  } else if (entry.dtype == "F16") {
    for (uint64_t i = 0; i < out.size(); ++i) out[i] = HalfToFloat(At<uint16_t>(entry.data, i));
  } else if (entry.dtype == "BF16") {
    for (uint64_t i = 0; i < out.size(); ++i) out[i] = std::bit_cast<float>(uint32_t{At<uint16_t>(entry.data, i)} << 16);
  } else {
    return false;
  }
  return true;
}

// False if the dtype is not one of integers that fit int64.
bool Integers(const SafetensorsEntry& entry, absl::Span<int64_t> out) {
  if (entry.dtype == "I64")
    Convert<int64_t>(entry.data, out);
  else if (entry.dtype == "I32")
    Convert<int32_t>(entry.data, out);
  else if (entry.dtype == "U32")
    Convert<uint32_t>(entry.data, out);
  else if (entry.dtype == "I16")
    Convert<int16_t>(entry.data, out);
  else if (entry.dtype == "U16")
    Convert<uint16_t>(entry.data, out);
  else if (entry.dtype == "I8")
    Convert<int8_t>(entry.data, out);
  else if (entry.dtype == "U8" || entry.dtype == "BOOL")
    Convert<uint8_t>(entry.data, out);
  else
    return false;
  return true;
}

bool Unsigned(const Json& json) { return json.is_number_integer() && (json.is_number_unsigned() || json.get<int64_t>() >= 0); }

absl::StatusOr<SafetensorsEntry> Entry(const std::string& name, const Json& json, std::string_view data) {
  if (name.size() > kNameBytesMax) return Bad(absl::StrCat("a tensor's name is longer than ", kNameBytesMax, " bytes: ", Excerpt(name)));
  if (!json.is_object() || !json.contains("dtype") || !json["dtype"].is_string() || !json.contains("shape") || !json["shape"].is_array() ||
      !json.contains("data_offsets") || !json["data_offsets"].is_array() || json["data_offsets"].size() != 2 ||
      !Unsigned(json["data_offsets"][0]) || !Unsigned(json["data_offsets"][1])) {
    return Bad(absl::StrCat("the header's entry ", name, " is malformed"));
  }
  SafetensorsEntry entry;
  entry.dtype = json["dtype"].get<std::string>();
  uint64_t bytes = ElementBytes(entry.dtype);
  if (bytes == 0) return Bad(absl::StrCat(name, " has dtype ", Excerpt(entry.dtype), ", which is not supported"));
  for (const Json& d : json["shape"]) {
    if (!Unsigned(d)) return Bad(absl::StrCat("shape of ", name, " is malformed"));
    const uint64_t size = d.get<uint64_t>();
    if (size > uint64_t{1} << 40 || (size > 0 && bytes > (uint64_t{1} << 60) / size)) return Bad(absl::StrCat(name, " is too large"));
    bytes *= size;
    entry.shape.push_back(static_cast<int64_t>(size));
  }
  const uint64_t begin = json["data_offsets"][0].get<uint64_t>();
  const uint64_t end = json["data_offsets"][1].get<uint64_t>();
  if (begin > end || end > data.size() || end - begin != bytes) {
    return Bad(absl::StrCat(name, " needs ", bytes, " bytes, its range is [", begin, ", ", end, ") of ", data.size()));
  }
  entry.data = data.substr(begin, bytes);
  return entry;
}

using Entries = std::map<std::string, SafetensorsEntry>;

Entries::const_iterator Find(const Entries& entries, const TensorSpec& spec) {
  auto it = entries.find(spec.name);
  for (size_t i = 0; it == entries.end() && i < spec.aliases.size(); ++i) it = entries.find(spec.aliases[i]);
  return it;
}

std::string Listed(const std::vector<std::string>& names) {
  const size_t n = std::min(names.size(), kListedMax);
  return absl::StrCat(absl::StrJoin(names.begin(), names.begin() + n, ", "), n < names.size() ? ", ..." : "");
}

absl::Status Fill(const SafetensorsEntry& entry, const TensorSpec& spec, size_t tensor, ParameterStore* out) {
  if (entry.shape != spec.shape) {
    return Bad(absl::StrCat(spec.name, " has shape [", Excerpt(absl::StrJoin(entry.shape, ", ")), "], the run's is [",
                            absl::StrJoin(spec.shape, ", "), "]"));
  }
  const bool fits = spec.dtype == DType::kF32 ? Floats(entry, out->F32(tensor)) : Integers(entry, out->I64(tensor));
  if (fits) return absl::OkStatus();
  return Bad(absl::StrCat(spec.name, " has dtype ", entry.dtype, ", the run needs ", spec.dtype == DType::kF32 ? "floats" : "integers"));
}

}  // namespace

absl::StatusOr<Entries> ParseSafetensors(std::string_view file) {
  static_assert(std::endian::native == std::endian::little);
  if (file.size() < sizeof(uint64_t)) return Bad("shorter than its length field");
  const uint64_t header_bytes = At<uint64_t>(file, 0);
  if (header_bytes > kSafetensorsHeaderMax || header_bytes > file.size() - sizeof(uint64_t)) {
    return Bad(absl::StrCat("a header of ", header_bytes, " bytes does not fit into a file of ", file.size()));
  }
  const std::string_view header = file.substr(sizeof(uint64_t), header_bytes);
  const std::string_view data = file.substr(sizeof(uint64_t) + header_bytes);
  const Json json = Json::parse(header.begin(), header.end(), nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) return Bad("the header is not a JSON object");
  if (json.size() > kTensorsMax + 1) return Bad("too many tensors");
  Entries entries;
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") continue;
    auto entry = Entry(name, value, data);
    if (!entry.ok()) return entry.status();
    entries.emplace(name, *std::move(entry));
  }
  return entries;
}

absl::Status LoadSafetensors(std::string_view file, absl::Span<const TensorSpec> tensors, ParameterStore* out) {
  const absl::StatusOr<Entries> entries = ParseSafetensors(file);
  if (!entries.ok()) return entries.status();
  std::vector<std::string> missing;
  std::set<std::string> known;
  for (size_t i = 0; i < tensors.size(); ++i) {
    known.insert(tensors[i].name);
    known.insert(tensors[i].aliases.begin(), tensors[i].aliases.end());
    const auto it = Find(*entries, tensors[i]);
    if (it == entries->end()) {
      missing.push_back(tensors[i].name);
      continue;
    }
    if (absl::Status status = Fill(it->second, tensors[i], i, out); !status.ok()) return status;
  }
  std::vector<std::string> unknown;
  for (const auto& [name, entry] : *entries) {
    if (!known.contains(name)) unknown.push_back(name);
  }
  if (!missing.empty()) return Bad(absl::StrCat("it lacks ", missing.size(), " tensors of the run: ", Listed(missing)));
  if (!unknown.empty()) return Bad(absl::StrCat("the run has no tensors named ", Listed(unknown)));
  return absl::OkStatus();
}

}  // namespace ballast
