#include "core/coordinator/ledger.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "core/record/hash.h"

namespace ballast {
namespace {

constexpr char kMagic[] = "BLG1";
constexpr size_t kMagicBytes = 4;

template <typename T>
void Put(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out.push_back(static_cast<char>(static_cast<uint64_t>(value) >> (8 * i)));
}

}  // namespace

// Reads integers from a snapshot; after the first short read everything is 0 and ok() is false.
class Ledger::Reader {
 public:
  explicit Reader(absl::string_view bytes) : bytes_(bytes) {}
  bool ok() const { return ok_; }
  bool at_end() const { return bytes_.empty(); }

  template <typename T>
  T Get() {
    if (bytes_.size() < sizeof(T)) ok_ = false;
    if (!ok_) return 0;
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes_[i])) << (8 * i);
    bytes_.remove_prefix(sizeof(T));
    return static_cast<T>(value);
  }
  // A count of items of `item_bytes` each, believed only when that many bytes are left.
  template <typename T>
  uint64_t GetCount(size_t item_bytes) {
    const uint64_t count = Get<T>();
    if (count > bytes_.size() / item_bytes) ok_ = false;
    return ok_ ? count : 0;
  }

 private:
  absl::string_view bytes_;
  bool ok_ = true;
};

bool Ledger::Add(const Batch& batch, bool skipped) {
  Epoch& epoch = epochs_[batch.id.epoch];
  if (epoch.closed || Find(batch.id)) return false;
  Partition& p = epoch.partitions[batch.id.partition];
  p.above.emplace(batch.id.seq, Mark{batch.fingerprint, skipped});
  for (auto it = p.above.begin(); it != p.above.end() && it->first == p.fingerprints.size(); it = p.above.erase(it)) {
    if (it->second.skipped) p.skipped.insert(it->first);
    p.fingerprints.push_back(it->second.fingerprint);
  }
  p.rows += batch.rows;
  ++epoch.totals.batches;
  (skipped ? epoch.totals.rows_skipped : epoch.totals.rows_trained) += batch.rows;
  return true;
}

const Ledger::Partition* Ledger::FindPartition(uint32_t epoch, uint32_t partition) const {
  const auto e = epochs_.find(epoch);
  if (e == epochs_.end()) return nullptr;
  const auto p = e->second.partitions.find(partition);
  return p == e->second.partitions.end() ? nullptr : &p->second;
}

std::optional<Ledger::Mark> Ledger::Find(const BatchId& id) const {
  const Partition* p = FindPartition(id.epoch, id.partition);
  if (p == nullptr) return std::nullopt;
  if (id.seq < p->fingerprints.size()) return Mark{p->fingerprints[id.seq], p->skipped.contains(id.seq)};
  const auto it = p->above.find(id.seq);
  return it == p->above.end() ? std::nullopt : std::optional<Mark>(it->second);
}

void Ledger::CountDuplicate(uint32_t epoch) { ++epochs_[epoch].totals.duplicates; }

uint64_t Ledger::MarkedBelow(uint32_t epoch, uint32_t partition) const {
  const Partition* p = FindPartition(epoch, partition);
  return p == nullptr ? 0 : p->fingerprints.size();
}

std::vector<SeqRange> Ledger::MarkedAbove(uint32_t epoch, uint32_t partition) const {
  std::vector<SeqRange> ranges;
  const Partition* p = FindPartition(epoch, partition);
  if (p == nullptr) return ranges;
  for (const auto& [seq, mark] : p->above) {
    if (!ranges.empty() && ranges.back().first + ranges.back().count == seq) {
      ++ranges.back().count;
    } else {
      ranges.push_back({seq, 1});
    }
  }
  return ranges;
}

std::vector<uint64_t> Ledger::Missing(uint32_t epoch, uint32_t partition, uint64_t count, size_t limit) const {
  std::vector<uint64_t> missing;
  const Partition* p = FindPartition(epoch, partition);
  for (uint64_t seq = MarkedBelow(epoch, partition); seq < count && missing.size() < limit; ++seq) {
    if (p == nullptr || !p->above.contains(seq)) missing.push_back(seq);
  }
  return missing;
}

Ledger::PartitionTotals Ledger::OfPartition(uint32_t epoch, uint32_t partition) const {
  const Partition* p = FindPartition(epoch, partition);
  if (p == nullptr) return {};
  if (p->above.empty()) return {p->fingerprints.size(), p->rows};
  const uint64_t last = p->above.rbegin()->first;
  return {last == std::numeric_limits<uint64_t>::max() ? last : last + 1, p->rows};
}

std::vector<uint32_t> Ledger::Partitions(uint32_t epoch) const {
  std::vector<uint32_t> partitions;
  const auto e = epochs_.find(epoch);
  if (e == epochs_.end()) return partitions;
  for (const auto& [partition, unused] : e->second.partitions) partitions.push_back(partition);
  return partitions;
}

Ledger::Totals Ledger::OfEpoch(uint32_t epoch) const {
  const auto e = epochs_.find(epoch);
  return e == epochs_.end() ? Totals{} : e->second.totals;
}

Ledger::Totals Ledger::OfRun() const {
  Totals sum;
  for (const auto& [number, epoch] : epochs_) {
    if (number == kInitBatch.epoch) continue;
    sum.batches += epoch.totals.batches;
    sum.rows_trained += epoch.totals.rows_trained;
    sum.rows_skipped += epoch.totals.rows_skipped;
    sum.duplicates += epoch.totals.duplicates;
  }
  return sum;
}

void Ledger::Close(uint32_t epoch) {
  Epoch& e = epochs_[epoch];
  e.closed = true;
  e.partitions.clear();
}

bool Ledger::IsClosed(uint32_t epoch) const {
  const auto e = epochs_.find(epoch);
  return e != epochs_.end() && e->second.closed;
}

std::string Ledger::Snapshot() const {
  std::string out(kMagic, kMagicBytes);
  Put(out, part_full_steps_);
  Put<uint32_t>(out, epochs_.size());
  for (const auto& [number, epoch] : epochs_) {
    Put<uint32_t>(out, number);
    Put<uint8_t>(out, epoch.closed);
    for (uint64_t v : {epoch.totals.batches, epoch.totals.rows_trained, epoch.totals.rows_skipped, epoch.totals.duplicates}) Put(out, v);
    Put<uint32_t>(out, epoch.partitions.size());
    for (const auto& [partition, p] : epoch.partitions) {
      Put<uint32_t>(out, partition);
      Put<uint64_t>(out, p.rows);
      Put<uint64_t>(out, p.fingerprints.size());
      for (uint64_t fingerprint : p.fingerprints) Put(out, fingerprint);
      Put<uint32_t>(out, p.skipped.size());
      for (uint64_t seq : p.skipped) Put(out, seq);
      Put<uint32_t>(out, p.above.size());
      for (const auto& [seq, mark] : p.above) {
        Put(out, seq);
        Put(out, mark.fingerprint);
        Put<uint8_t>(out, mark.skipped);
      }
    }
  }
  Put(out, Hash64(out));
  return out;
}

bool Ledger::ReadPartition(Reader& in, Partition& p) {
  p.rows = in.Get<uint64_t>();
  p.fingerprints.resize(in.GetCount<uint64_t>(sizeof(uint64_t)));
  for (uint64_t& fingerprint : p.fingerprints) fingerprint = in.Get<uint64_t>();
  for (uint64_t n = in.GetCount<uint32_t>(sizeof(uint64_t)); n > 0; --n) {
    const uint64_t seq = in.Get<uint64_t>();
    if (seq >= p.fingerprints.size() || !p.skipped.insert(seq).second) return false;
  }
  for (uint64_t n = in.GetCount<uint32_t>(17); n > 0; --n) {
    const uint64_t seq = in.Get<uint64_t>();
    const uint64_t fingerprint = in.Get<uint64_t>();
    const bool skipped = in.Get<uint8_t>() != 0;
    if (seq <= p.fingerprints.size() || !p.above.emplace(seq, Mark{fingerprint, skipped}).second) return false;
  }
  return in.ok();
}

absl::StatusOr<Ledger> Ledger::Parse(absl::string_view bytes) {
  Ledger ledger;
  if (bytes.empty()) return ledger;
  if (bytes.size() < kMagicBytes + 20) return absl::DataLossError("ledger snapshot: too short");
  Reader tail(bytes.substr(bytes.size() - 8));
  const absl::string_view body = bytes.substr(0, bytes.size() - 8);
  if (tail.Get<uint64_t>() != Hash64(body)) return absl::DataLossError("ledger snapshot: checksum differs");
  if (body.substr(0, kMagicBytes) != absl::string_view(kMagic, kMagicBytes)) return absl::DataLossError("ledger snapshot: unknown format");
  Reader in(body.substr(kMagicBytes));
  ledger.part_full_steps_ = in.Get<uint64_t>();
  for (uint64_t epochs = in.GetCount<uint32_t>(41); epochs > 0; --epochs) {
    const auto [it, fresh] = ledger.epochs_.try_emplace(in.Get<uint32_t>());
    Epoch& epoch = it->second;
    epoch.closed = in.Get<uint8_t>() != 0;
    for (uint64_t* v : {&epoch.totals.batches, &epoch.totals.rows_trained, &epoch.totals.rows_skipped, &epoch.totals.duplicates}) {
      *v = in.Get<uint64_t>();
    }
    if (!fresh || !in.ok()) return absl::DataLossError("ledger snapshot: malformed epoch");
    for (uint64_t partitions = in.GetCount<uint32_t>(28); partitions > 0; --partitions) {
      const auto [p, fresh_partition] = epoch.partitions.try_emplace(in.Get<uint32_t>());
      if (!fresh_partition || !ReadPartition(in, p->second)) return absl::DataLossError("ledger snapshot: malformed partition");
    }
  }
  if (!in.ok() || !in.at_end()) return absl::DataLossError("ledger snapshot: malformed");
  return ledger;
}

}  // namespace ballast
