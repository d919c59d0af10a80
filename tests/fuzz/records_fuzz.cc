// The small records of a server, as a disk may give them back: definitions, manifests, epochs, stops and generations of removed runs in the
// store, the records of checkpoints, the high mark of a log, IDENTITY and INCARNATION of the directory. Each is refused with what is wrong,
// or what was read can be written and read again.
#include <google/protobuf/stubs/logging.h>

#include <filesystem>
#include <fstream>

#include "core/record/wire.h"
#include "proto/convert_control.h"
#include "server/coordinator/run_records.h"
#include "server/shard/checkpoint_store.h"
#include "server/storage/data_dir.h"
#include "server/storage/high_mark.h"
#include "server/storage/memory_store.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/temp_folder.h"

namespace ballast {
namespace {

void CheckLoss(const absl::Status& status) {
  fuzz::CheckRefusal(status);
  FUZZ_CHECK(absl::IsDataLoss(status));
}

void Runs(const std::string& value) {
  MemoryStore store;
  RunRecords records(&store);
  FUZZ_CHECK(store.Put("run/a", value).ok());
  const auto runs = records.LoadRuns();
  if (!runs.ok()) return CheckLoss(runs.status());
  FUZZ_CHECK(runs->size() == 1);
  FUZZ_CHECK(store.Delete("run/a").ok() && records.PutRun(runs->front()).ok());
  const auto again = records.LoadRuns();
  FUZZ_CHECK(again.ok() && again->size() == 1);
  FUZZ_CHECK(ToProto(again->front()).SerializeAsString() == ToProto(runs->front()).SerializeAsString());
}

void Manifests(const std::string& value) {
  MemoryStore store;
  RunRecords records(&store);
  FUZZ_CHECK(store.Put("manifest/a/00000000000000000001", value).ok());
  const auto manifests = records.LoadManifests("a");
  if (!manifests.ok()) return CheckLoss(manifests.status());
  const Manifest& manifest = manifests->front();
  MemoryStore other;
  FUZZ_CHECK(RunRecords(&other).PutManifest(manifest).ok());
  const auto again = RunRecords(&other).LoadManifests(manifest.run);
  FUZZ_CHECK(again.ok() && again->size() == 1);
  FUZZ_CHECK(ToProto(again->front()).SerializeAsString() == ToProto(manifest).SerializeAsString());
  FUZZ_CHECK(RunRecords(&other).DropManifests(manifest.run, [](uint64_t) { return false; }).ok() &&
             RunRecords(&other).LoadManifests(manifest.run)->empty());
}

void Epochs(const std::string& value) {
  MemoryStore store;
  RunRecords records(&store);
  FUZZ_CHECK(store.Put("epoch/a/0000000001", value).ok());
  const auto epochs = records.LoadEpochs("a");
  if (!epochs.ok()) return CheckLoss(epochs.status());
  MemoryStore other;
  FUZZ_CHECK(RunRecords(&other).PutEpoch("a", epochs->front()).ok());
  const auto again = RunRecords(&other).LoadEpochs("a");
  FUZZ_CHECK(again.ok() && again->size() == 1 && again->front().committed == epochs->front().committed);
  FUZZ_CHECK(ToProto("a", again->front()).SerializeAsString() == ToProto("a", epochs->front()).SerializeAsString());
}

void Removed(const std::string& value) {
  MemoryStore store;
  FUZZ_CHECK(store.Put("removed/a", value).ok());
  const auto generation = RunRecords(&store).NextGeneration("a");
  if (!generation.ok()) return CheckLoss(generation.status());
  FUZZ_CHECK(*generation >= 1);  // above that of the removed run
  FUZZ_CHECK(store.Put("stopped/a", value).ok());
  FUZZ_CHECK(RunRecords(&store).LoadStopped("a")->value() == value);
}

void Checkpoints(std::string value) {
  WireReader in(value);
  while (in.Next()) {
  }
  if (!in.ok()) return;  // it is left out with a warning: a line of log for each would be all that a campaign writes
  SealValue(&value);     // a fuzzer cannot guess the checksum
  MemoryStore store;
  FUZZ_CHECK(store.Put("ckpt/a/meta/00000000000000000001", value).ok());
  const auto found = ListCheckpoints(store, "a");
  FUZZ_CHECK(found.ok() && found->size() <= 1);
  for (const auto& [version, meta] : *found) {
    MemoryStore other;
    FUZZ_CHECK(PutCheckpointMeta(other, "a", meta).ok());
    const auto again = ListCheckpoints(other, "a");
    FUZZ_CHECK(again.ok() && again->size() == 1 && again->begin()->first == version && meta.position.version == version);
    const CheckpointMeta& same = again->begin()->second;
    FUZZ_CHECK(same.blocks == meta.blocks && same.digest == meta.digest && same.position.index == meta.position.index);
  }
}

void HighMarks(fuzz::Input& in) {
  const std::string path = fuzz::TempFolder() + "/mark";
  const uint64_t value = in.U64();
  FUZZ_CHECK(HighMark::Create(path, value).ok());
  auto bytes = ReadFile(path);
  FUZZ_CHECK(bytes.ok());
  const size_t whole = bytes->size();
  for (uint64_t n = in.Below(3); n > 0 && !bytes->empty(); --n) {
    const size_t at = in.Below(bytes->size());
    if (in.Bool()) {
      (*bytes)[at] = static_cast<char>((*bytes)[at] ^ (1 << in.Below(8)));
    } else {
      bytes->resize(at);
    }
  }
  if (in.Below(8) == 7) *bytes = std::string(in.rest());
  std::ofstream(path, std::ios::binary | std::ios::trunc) << *bytes;
  const auto read = ReadHighMark(path);
  if (!read.ok()) return CheckLoss(read.status());
  FUZZ_CHECK(*read == value || bytes->size() != whole);  // no checksum of another number is met by accident
}

void Directory(fuzz::Input& in) {
  const std::string dir = fuzz::TempFolder() + "/dir";
  const ServerIdentity identity{"ballast", 0, 1};
  std::error_code ignored;
  std::filesystem::remove_all(dir, ignored);
  FUZZ_CHECK(DataDir::Open(dir, identity).ok());
  const bool of_identity = in.Bool();
  const std::string path = dir + (of_identity ? "/IDENTITY" : "/INCARNATION");
  std::string text = *ReadFile(path);
  if (in.Bool() && !text.empty()) {
    text[in.Below(text.size())] = static_cast<char>(in.Byte());
  } else {
    text = std::string(in.rest());
  }
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
  const auto opened = DataDir::Open(dir, identity);
  if (!opened.ok()) return fuzz::CheckRefusal(opened.status());
  FUZZ_CHECK((*opened)->incarnation() >= 1);
}

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ballast;
  static const auto quiet = google::protobuf::SetLogHandler(nullptr);
  (void)quiet;
  fuzz::Input in(data, size);
  const uint8_t kind = in.Byte();
  if (kind == 255) {  // files cost a hundred times as much
    if (in.Bool()) {
      HighMarks(in);
    } else {
      Directory(in);
    }
    return 0;
  }
  const std::string value(in.rest());
  switch (kind % 5) {
    case 0:
      Runs(value);
      break;
    case 1:
      Manifests(value);
      break;
    case 2:
      Epochs(value);
      break;
    case 3:
      Removed(value);
      break;
    default:
      Checkpoints(value);
  }
  return 0;
}
