#include "server/shard/checkpoint_store.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/codec/codec.h"
#include "core/record/hash.h"
#include "core/record/state_hash.h"
#include "core/record/wire.h"
#include "server/log.h"

namespace ballast {
namespace {

constexpr size_t kLoadThreads = 4;  // mostly waiting for the disk

std::string RunPrefix(const std::string& run) { return absl::StrCat("ckpt/", run, "/"); }
std::string MetaPrefix(const std::string& run) { return RunPrefix(run) + "meta/"; }
std::string LogKey(const std::string& run) { return RunPrefix(run) + "log"; }
std::string VersionPrefix(const std::string& run, uint64_t version) { return absl::StrFormat("%s%020d/", RunPrefix(run), version); }

std::string EncodeMeta(const CheckpointMeta& meta) {
  std::string out;
  WireWriter w(&out);
  w.Varint(1, meta.position.index);
  w.Varint(2, meta.position.version);
  w.Fixed64(3, meta.position.chain);
  w.Varint(4, meta.position.step);
  w.Varint(5, meta.position.closed_below);
  w.Varint(6, meta.position.generation);
  w.Varint(7, meta.blocks);
  w.Varint(8, meta.digest.shard);
  w.Fixed64(9, meta.digest.digest);
  w.Varint(10, meta.digest.bytes);
  w.Varint(11, meta.digest.nonfinite);
  return out;
}

absl::StatusOr<CheckpointMeta> ParseMeta(absl::string_view bytes) {
  CheckpointMeta meta;
  WireReader in(bytes);
  while (in.Next()) {
    switch (in.field()) {
      case 1:
        meta.position.index = in.Varint();
        break;
      case 2:
        meta.position.version = in.Varint();
        break;
      case 3:
        meta.position.chain = in.Fixed64();
        break;
      case 4:
        meta.position.step = in.Varint();
        break;
      case 5:
        meta.position.closed_below = in.Varint();
        break;
      case 6:
        meta.position.generation = in.Varint();
        break;
      case 7:
        meta.blocks = in.Varint();
        break;
      case 8:
        meta.digest.shard = in.Varint32();
        break;
      case 9:
        meta.digest.digest = in.Fixed64();
        break;
      case 10:
        meta.digest.bytes = in.Varint();
        break;
      case 11:
        meta.digest.nonfinite = in.Varint();
        break;
    }
  }
  if (!in.ok()) return in.status("checkpoint record");
  return meta;
}

}  // namespace

std::string BlockKey(const std::string& run, uint64_t version, size_t block, int slot) {
  return absl::StrFormat("%s%08d/%d", VersionPrefix(run, version), block, slot + 1);
}

void SealValue(std::string* bytes) {
  WireWriter w(bytes);
  w.RawFixed64(Hash64(*bytes));
}

absl::StatusOr<absl::string_view> OpenValue(absl::string_view key, absl::string_view sealed) {
  uint64_t checksum = 0;
  if (sealed.size() >= sizeof(checksum)) {
    const absl::string_view value = sealed.substr(0, sealed.size() - sizeof(checksum));
    std::memcpy(&checksum, sealed.data() + value.size(), sizeof(checksum));
    if (Hash64(value) == checksum) return value;
  }
  return absl::DataLossError(absl::StrCat("record ", key, " does not match its checksum"));
}

absl::StatusOr<std::string> ReadCheckpointArray(Store& store, const std::string& key, uint64_t bytes) {
  absl::StatusOr<std::string> sealed = store.Get(key);
  if (absl::IsNotFound(sealed.status())) return absl::DataLossError(absl::StrCat("block ", key, " of a checkpoint is missing"));
  if (!sealed.ok()) return sealed;
  absl::StatusOr<absl::string_view> value = OpenValue(key, *sealed);
  if (!value.ok()) return value.status();
  if (value->size() != bytes)
    return absl::DataLossError(absl::StrCat("block ", key, " holds ", value->size(), " bytes instead of ", bytes));
  sealed->resize(bytes);
  return sealed;
}

absl::Status PutCheckpointMeta(Store& store, const std::string& run, const CheckpointMeta& meta) {
  std::string value = EncodeMeta(meta);
  SealValue(&value);
  return store.Put(absl::StrFormat("%s%020d", MetaPrefix(run), meta.position.version), value);
}

absl::StatusOr<std::map<uint64_t, CheckpointMeta>> ListCheckpoints(Store& store, const std::string& run) {
  std::map<uint64_t, CheckpointMeta> out;
  const absl::Status s = store.Scan(MetaPrefix(run), [&](absl::string_view key, absl::string_view sealed) {
    absl::StatusOr<absl::string_view> value = OpenValue(key, sealed);
    absl::StatusOr<CheckpointMeta> meta = value.ok() ? ParseMeta(*value) : value.status();
    if (meta.ok()) {
      out[meta->position.version] = *meta;
    } else {
      LogWarning("a checkpoint is damaged and not used", {{"run", run}, {"error", std::string(meta.status().message())}});
    }
    return true;
  });
  if (!s.ok()) return s;
  return out;
}

absl::Status DeleteCheckpoint(Store& store, const std::string& run, uint64_t version) {
  if (absl::Status s = store.Delete(absl::StrFormat("%s%020d", MetaPrefix(run), version)); !s.ok()) return s;
  return store.DeletePrefix(VersionPrefix(run, version));
}

namespace {

absl::Status LoadBlock(Store& store, uint64_t version, size_t block, Replica& replica, RecoveryProgress* progress) {
  for (int slot = -1; slot < replica.blocks().slots(block); ++slot) {
    const std::string key = BlockKey(replica.blocks().spec().name, version, block, slot);
    absl::StatusOr<std::string> value = ReadCheckpointArray(store, key, replica.values().Bytes(block, slot));
    if (!value.ok()) return value.status();
    replica.values().CopyIn(block, slot, *value);
    if (progress != nullptr) progress->Read(value->size());
  }
  return absl::OkStatus();
}

// Several at a time: one after another would wait for the disk at each.
absl::Status LoadBlocks(Store& store, uint64_t version, Replica& replica, RecoveryProgress* progress) {
  std::vector<absl::Status> loaded(replica.blocks().size());
  std::atomic<bool> failed{false};
  ThreadTeam(kLoadThreads).ForEach(loaded.size(), [&](size_t b) {
    if (failed) return;
    loaded[b] = LoadBlock(store, version, b, replica, progress);
    if (!loaded[b].ok()) failed = true;
  });
  const auto first = std::find_if(loaded.begin(), loaded.end(), [](const absl::Status& s) { return !s.ok(); });
  return first == loaded.end() ? absl::OkStatus() : *first;
}

}  // namespace

absl::Status LoadValues(Store& store, const CheckpointMeta& meta, Replica& replica, RecoveryProgress* progress) {
  const ShardBlocks& blocks = replica.blocks();
  if (meta.blocks != blocks.size() || meta.position.generation < blocks.generation()) {
    return absl::DataLossError(absl::StrCat("checkpoint at version ", meta.position.version, " has ", meta.blocks, " blocks of generation ",
                                            meta.position.generation, ", the shard has ", blocks.size(), " of generation ",
                                            blocks.generation()));
  }
  if (absl::Status s = LoadBlocks(store, meta.position.version, replica, progress); !s.ok()) return s;
  if (replica.values().Root() != meta.digest.digest) {
    return absl::DataLossError(absl::StrCat("checkpoint at version ", meta.position.version, " does not match its digest"));
  }
  return absl::OkStatus();
}

absl::Status LoadCheckpoint(Store& store, const CheckpointMeta& meta, Replica& replica, RecoveryProgress* progress) {
  absl::Status loaded = LoadValues(store, meta, replica, progress);
  if (loaded.ok()) replica.StartAt(meta.position);
  return loaded;
}

absl::Status RestoreValues(Store& store, const std::map<uint64_t, CheckpointMeta>& checkpoints, const Decision& rollback,
                           Replica& replica) {
  const auto meta = checkpoints.find(rollback.rollback_version);
  if (meta != checkpoints.end()) return LoadValues(store, meta->second, replica);
  return absl::DataLossError(absl::StrCat("decision ", rollback.index, " of run ", rollback.run, " goes back to version ",
                                          rollback.rollback_version, ", whose checkpoint is not here any more"));
}

absl::StatusOr<std::shared_ptr<const Encoding>> EncodeCheckpoint(Store& store, const CheckpointMeta& meta, const ShardBlocks& blocks,
                                                                 bool slots, absl::Span<const uint32_t> tensors) {
  const std::string& run = blocks.spec().name;
  const uint32_t tensor_count = static_cast<uint32_t>(blocks.spec().tensors.size());
  std::vector<Block> wanted;
  std::vector<std::string> keys;
  for (int slot = -1; slot < (slots ? kSlotsMax : 0); ++slot) {
    for (size_t b = 0; b < blocks.size(); ++b) {
      Block block = blocks.block(b);
      if (slot >= blocks.slots(b)) continue;
      if (!tensors.empty() && std::find(tensors.begin(), tensors.end(), block.tensor) == tensors.end()) continue;
      block.tensor += static_cast<uint32_t>(slot + 1) * tensor_count;
      wanted.push_back(block);
      keys.push_back(BlockKey(run, meta.position.version, b, slot));
    }
  }
  absl::Status failed;
  const auto codec_of = [&](const Block& block) {
    return block.tensor < tensor_count && blocks.spec().tensors[block.tensor].dtype == DType::kI64 ? Codec::kI64 : Codec::kFp32;
  };
  const auto fill = [&](size_t i, absl::Span<char> out) {  // both codecs are the bytes as they are stored
    if (!failed.ok()) return;
    absl::StatusOr<std::string> value = ReadCheckpointArray(store, keys[i], out.size());
    if (value.ok()) {
      std::memcpy(out.data(), value->data(), out.size());
    } else {
      failed = value.status();
    }
  };
  auto encoding = std::make_shared<const Encoding>(MakeEncoding(meta.position.version, wanted, codec_of, fill));
  if (!failed.ok()) return failed;
  return encoding;
}

absl::Status PutLogBegun(Store& store, const std::string& run, uint64_t generation) {
  return store.Put(LogKey(run), absl::StrCat(generation));
}

absl::StatusOr<uint64_t> LoggedGeneration(Store& store, const std::string& run) {
  const absl::StatusOr<std::string> value = store.Get(LogKey(run));
  if (absl::IsNotFound(value.status())) return 0;
  if (!value.ok()) return value.status();
  uint64_t generation = 0;
  if (!absl::SimpleAtoi(*value, &generation)) return absl::DataLossError(absl::StrCat("the record ", LogKey(run), " is damaged"));
  return generation;
}

absl::Status DeleteShardRecords(Store& store, const std::string& run) { return store.DeletePrefix(RunPrefix(run)); }

}  // namespace ballast
