// Weights as files: the worker's reader of anybody's safetensors file, and ballastctl's writer, whose files the reader must take back.
#include <fstream>
#include <iterator>

#include "tests/fuzz/input.h"
#include "tests/fuzz/temp_folder.h"
#include "tools/ballastctl/safetensors_writer.h"
#include "worker/model/safetensors.h"

namespace ballast {
namespace {

std::vector<TensorSpec> RunTensors() {
  std::vector<TensorSpec> tensors(3);
  tensors[0].name = "w";
  tensors[0].shape = {2, 3};
  tensors[1].name = "n";
  tensors[1].dtype = DType::kI64;
  tensors[1].aliases = {"m"};
  tensors[2].name = "b";
  tensors[2].shape = {4};
  return tensors;
}

void Read(std::string_view file) {
  const auto entries = ParseSafetensors(file);
  if (!entries.ok()) fuzz::CheckRefusal(entries.status());
  if (entries.ok()) {
    for (const auto& [name, entry] : *entries) {
      FUZZ_CHECK(entry.data.empty() ||
                 (entry.data.data() >= file.data() && entry.data.data() + entry.data.size() <= file.data() + file.size()));
    }
  }
  static const std::vector<TensorSpec> tensors = RunTensors();
  ParameterStore store(tensors);
  const absl::Status loaded = LoadSafetensors(file, tensors, &store);
  FUZZ_CHECK(entries.ok() || !loaded.ok());
  if (!loaded.ok()) fuzz::CheckRefusal(loaded);
}

// A header of any text with the length that it has.
void ReadHeader(fuzz::Input& in) {
  const size_t wanted = in.Byte();
  const size_t data_bytes = std::min(wanted, in.rest().size());
  const absl::string_view header = in.rest().substr(data_bytes);
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof length);
  file.append(header.data(), header.size());
  file.append(in.rest().data(), data_bytes);
  Read(file);
}

void WriteAndRead(fuzz::Input& in) {
  static constexpr const char* kDtypes[] = {"float32", "float64", "float16", "bfloat16", "int64",    "int32",
                                            "int16",   "int8",    "uint8",   "bool",     "complex64"};
  std::vector<ctl::ExportTensor> tensors(1 + in.Below(4));
  std::vector<std::string> values(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    ctl::ExportTensor& t = tensors[i];
    t.name = in.Text(12);
    for (char& c : t.name) c = static_cast<char>(c & 0x7f);  // names come out of protobuf strings: UTF-8
    if (in.Byte() % 16 == 0) t.name = "__metadata__";
    t.source_dtype = kDtypes[in.Below(std::size(kDtypes))];
    uint64_t elements = 1;
    for (uint64_t dims = in.Below(3); dims > 0; --dims) {
      t.shape.push_back(static_cast<int64_t>(1 + in.Below(4)));
      elements *= static_cast<uint64_t>(t.shape.back());
    }
    const bool floats = t.source_dtype.find("float") != std::string::npos;
    for (uint64_t e = 0; e < elements; ++e) {
      const uint64_t bits = in.Raw<uint64_t>();
      values[i].append(reinterpret_cast<const char*>(&bits), floats ? 4 : 8);
    }
    t.values = &values[i];
  }
  const uint64_t file_bytes_max = in.Bool() ? 64 : ctl::kExportFileBytesMax;
  const auto written = ctl::WriteSafetensors(fuzz::TempFolder(), tensors, {{"run", in.Text(8).empty() ? "" : "r"}}, file_bytes_max);
  if (!written.ok()) return fuzz::CheckRefusal(written.status());
  std::map<std::string, const ctl::ExportTensor*> wanted;
  for (const ctl::ExportTensor& t : tensors) FUZZ_CHECK(wanted.emplace(t.name, &t).second);
  for (const std::string& path : *written) {
    if (path.ends_with(".json")) continue;
    std::ifstream stream(path, std::ios::binary);
    const std::string file((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    const auto entries = ParseSafetensors(file);
    FUZZ_CHECK(entries.ok());
    for (const auto& [name, entry] : *entries) {
      const auto it = wanted.find(name);
      FUZZ_CHECK(it != wanted.end() && it->second->shape == entry.shape);
      if (entry.dtype == "F32" || entry.dtype == "I64") FUZZ_CHECK(entry.data == *it->second->values);
      wanted.erase(it);
    }
  }
  FUZZ_CHECK(wanted.empty());
}

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ballast::fuzz::Input in(data, size);
  switch (in.Byte() % 4) {
    case 0:
      ballast::Read({in.rest().data(), in.rest().size()});
      break;
    case 1:
      ballast::WriteAndRead(in);
      break;
    default:
      ballast::ReadHeader(in);
  }
  return 0;
}
