#include "core/coordinator/epochs.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/status.h"

namespace ballast {
namespace {

std::string LayoutText(const EpochRecord& r) {
  return absl::StrCat(r.partitions, " partitions, batches of ", r.batch_rows, " rows, columns \"", r.schema, "\"");
}

absl::Status DataChanged(uint32_t epoch, uint32_t partition, const std::string& what) {
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat("epoch ", epoch, ", partition ", partition, ": ", what,
                                                 ". The data changed between two attempts of this epoch; start a run under another name.")),
      "DATA_CHANGED", {{"epoch", absl::StrCat(epoch)}, {"partition", absl::StrCat(partition)}});
}

}  // namespace

void Epochs::Restore(const std::vector<EpochRecord>& records) {
  for (const EpochRecord& record : records) {
    EpochState& epoch = epochs_[record.epoch];
    epoch.record = record;
    epoch.phase = record.committed ? EpochState::Phase::kCommitted : EpochState::Phase::kOpen;
  }
}

EpochState* Epochs::Find(uint32_t epoch) {
  const auto it = epochs_.find(epoch);
  return it == epochs_.end() ? nullptr : &it->second;
}

const EpochState* Epochs::Find(uint32_t epoch) const { return const_cast<Epochs*>(this)->Find(epoch); }

bool Epochs::Grantable(const BatchId& batch) const {
  const EpochState* epoch = Find(batch.epoch);
  return epoch != nullptr && epoch->phase == EpochState::Phase::kOpen && batch.partition < epoch->record.partitions;
}

bool Epochs::Open() const {
  return std::any_of(epochs_.begin(), epochs_.end(), [](const auto& e) { return e.second.phase != EpochState::Phase::kCommitted; });
}

absl::Status Epochs::CheckBegin(const RunSpec& spec, const EpochRecord& record) const {
  if (record.epoch == 0 || record.partitions == 0 || record.partitions > kPartitionsMax) {
    return absl::InvalidArgumentError(absl::StrCat("epochs are numbered 1, 2, ... and have 1 to ", kPartitionsMax,
                                                   " partitions; got epoch ", record.epoch, " with ", record.partitions));
  }
  if (record.schema != spec.schema) {
    return WithReason(absl::FailedPreconditionError(absl::StrCat("run ", spec.name, " was created for the columns \"", spec.schema,
                                                                 "\", this epoch has \"", record.schema,
                                                                 "\". Send the same columns, or start a run under another name.")),
                      "EPOCH_LAYOUT_DIFFERS");
  }
  if (record.batch_rows > spec.batch_rows) {
    return WithReason(absl::FailedPreconditionError(absl::StrCat("run ", spec.name, " was created for batches of at most ", spec.batch_rows,
                                                                 " rows, this epoch has batches of ", record.batch_rows,
                                                                 ". Send smaller ones, or start a run under another name.")),
                      "EPOCH_LAYOUT_DIFFERS");
  }
  if (const EpochState* known = Find(record.epoch); known != nullptr) {
    const EpochRecord& old = known->record;
    if (old.partitions == record.partitions && old.batch_rows == record.batch_rows && old.schema == record.schema) return absl::OkStatus();
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(
            "epoch ", record.epoch, " of run ", spec.name, " was begun with ", LayoutText(old), "; now it is ", LayoutText(record),
            ". Which row is in which batch would change. Go on with the first layout, or start a run under another name.")),
        "EPOCH_LAYOUT_DIFFERS");
  }
  const uint32_t next = epochs_.empty() ? 1 : epochs_.rbegin()->first + 1;
  if (record.epoch == next && !Open()) return absl::OkStatus();
  const std::string why = Open() ? absl::StrCat("epoch ", epochs_.rbegin()->first, " is not committed yet: commit it first")
                                 : absl::StrCat("the next epoch is ", next);
  return WithReason(absl::FailedPreconditionError(absl::StrCat("run ", spec.name, " cannot begin epoch ", record.epoch, ": ", why, ".")),
                    "EPOCH_ORDER");
}

EpochState& Epochs::Begin(const EpochRecord& record) {
  EpochState& epoch = epochs_[record.epoch];
  epoch.record = record;
  epoch.record.committed = false;
  epoch.record.report = {};
  epoch.record.report.epoch = record.epoch;
  epoch.phase = EpochState::Phase::kBeginning;
  return epoch;
}

Epochs::Rewound Epochs::Rewind(uint64_t version, const Ledger& ledger) {
  Rewound rewound;
  bool all_committed = true;
  for (auto it = epochs_.begin(); it != epochs_.end();) {
    auto& [number, epoch] = *it;
    EpochRecord& record = epoch.record;
    const bool stays = record.committed && record.report.manifest_version <= version;
    if (all_committed && stays) {
      ++it;
      continue;
    }
    const bool open = std::exchange(all_committed, false) && (!record.committed || !ledger.Partitions(number).empty());
    if (!open) {
      rewound.forgotten.push_back(number);
      epochs_.erase(it++);
      continue;
    }
    record.committed = false;
    record.report = {};
    record.report.epoch = number;
    epoch.phase = EpochState::Phase::kOpen;
    epoch.covered_from = 0;
    rewound.reopened.push_back(record);
    ++it;
  }
  return rewound;
}

absl::Status Epochs::CheckCounts(const EpochState& epoch, const Ledger& ledger, const Counts& counts, const std::vector<BatchId>& held) {
  const EpochRecord& record = epoch.record;
  std::vector<bool> seen(record.partitions, false);
  std::vector<uint64_t> batches(record.partitions, 0);
  for (const auto& c : counts) {
    if (c.partition >= record.partitions || seen[c.partition]) {
      return absl::InvalidArgumentError(absl::StrCat("epoch ", record.epoch, " has partitions 0 to ", record.partitions - 1,
                                                     ", each counted once; partition ", c.partition, " is not one, or came twice"));
    }
    seen[c.partition] = true;
    batches[c.partition] = c.batches;
  }
  for (uint32_t partition : ledger.Partitions(record.epoch)) {
    const uint64_t end = ledger.OfPartition(record.epoch, partition).end;
    const uint64_t counted = partition < batches.size() ? batches[partition] : 0;  // a ledger from disk may know partitions of its own
    if (end > counted) {
      return DataChanged(record.epoch, partition,
                         absl::StrCat("batch ", end - 1, " is trained, but only ", counted, " batches were counted"));
    }
  }
  for (const BatchId& b : held) {
    if (b.seq >= batches[b.partition]) {
      return DataChanged(record.epoch, b.partition,
                         absl::StrCat("batch ", b.seq, " is being trained, but only ", batches[b.partition], " batches were counted"));
    }
  }
  return absl::OkStatus();
}

absl::Status Epochs::CheckRows(const EpochState& epoch, const Ledger& ledger, const Counts& counts) {
  for (const auto& c : counts) {
    const uint64_t rows = ledger.OfPartition(epoch.record.epoch, c.partition).rows;
    if (rows != c.rows) {
      return DataChanged(epoch.record.epoch, c.partition,
                         absl::StrCat(rows, " rows are trained or skipped, but ", c.rows, " were counted"));
    }
  }
  return absl::OkStatus();
}

std::vector<MissingBatches> Epochs::MissingOf(const EpochState& epoch, const Ledger& ledger, const Counts& counts) {
  std::vector<MissingBatches> missing;
  size_t room = kMissingTotalMax;
  for (const auto& c : counts) {
    std::vector<uint64_t> seqs = ledger.Missing(epoch.record.epoch, c.partition, c.batches, std::min(kMissingMax, room));
    room -= seqs.size();
    if (!seqs.empty()) missing.push_back({c.partition, std::move(seqs)});
  }
  return missing;
}

EpochReport Epochs::Report(const EpochState& epoch, const Ledger& ledger) {
  if (epoch.record.committed) return epoch.record.report;
  EpochReport report = epoch.record.report;
  const Ledger::Totals totals = ledger.OfEpoch(epoch.record.epoch);
  report.epoch = epoch.record.epoch;
  report.batches = totals.batches;
  report.rows_trained = totals.rows_trained;
  report.rows_skipped = totals.rows_skipped;
  report.duplicates = totals.duplicates;
  return report;
}

}  // namespace ballast
