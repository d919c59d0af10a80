// core/coordinator/ledger: snapshots out of manifests, and any marks, beside the plainest model that can be.
#include "core/coordinator/ledger.h"

#include <map>

#include "core/record/hash.h"
#include "tests/fuzz/input.h"

namespace ballast {
namespace {

void Snapshot(absl::string_view body) {
  std::string bytes(body);
  const uint64_t sum = Hash64(bytes);  // a fuzzer cannot guess it
  bytes.append(reinterpret_cast<const char*>(&sum), sizeof sum);
  const auto ledger = Ledger::Parse(bytes);
  if (!ledger.ok()) {
    fuzz::CheckRefusal(ledger.status());
    FUZZ_CHECK(absl::IsDataLoss(ledger.status()));
    return;
  }
  const std::string written = ledger->Snapshot();
  const auto again = Ledger::Parse(written);
  FUZZ_CHECK(again.ok() && again->Snapshot() == written);
}

void CheckPartition(const Ledger& ledger, const std::map<BatchId, Batch>& marks, uint32_t epoch, uint32_t partition) {
  const uint64_t below = ledger.MarkedBelow(epoch, partition);
  for (uint64_t seq = 0; seq < below; ++seq) FUZZ_CHECK(marks.contains({epoch, partition, seq}));
  uint64_t marked = below;
  for (const SeqRange& range : ledger.MarkedAbove(epoch, partition)) {
    FUZZ_CHECK(range.count > 0 && range.first > below);
    for (uint64_t i = 0; i < range.count; ++i) FUZZ_CHECK(marks.contains({epoch, partition, range.first + i}));
    marked += range.count;
  }
  uint64_t rows = 0, count = 0, last = 0;
  for (auto it = marks.lower_bound({epoch, partition, 0}); it != marks.end(); ++it) {
    if (it->first.epoch != epoch || it->first.partition != partition) break;
    rows += it->second.rows;
    last = it->first.seq;
    ++count;
  }
  FUZZ_CHECK(marked == count);
  const Ledger::PartitionTotals totals = ledger.OfPartition(epoch, partition);
  FUZZ_CHECK(totals.rows == rows);
  FUZZ_CHECK(count == 0 ? totals.end == 0 : totals.end > last || (last == ~uint64_t{0} && totals.end == last));
  for (uint64_t seq : ledger.Missing(epoch, partition, last, 100)) FUZZ_CHECK(seq < last && !marks.contains({epoch, partition, seq}));
}

void Marks(fuzz::Input& in) {
  Ledger ledger;
  std::map<BatchId, Batch> marks;
  std::map<uint32_t, bool> closed;
  for (int n = 0; n < 200 && !in.empty(); ++n) {
    const BatchId id{static_cast<uint32_t>(in.Below(3)), static_cast<uint32_t>(in.Below(2)), in.U64()};
    const Batch batch{id, in.U32(), in.U64()};
    const uint8_t what = in.Byte();
    if (what == 255) {
      ledger.Close(id.epoch);
      closed[id.epoch] = true;
      continue;
    }
    const bool skipped = what % 4 == 0;
    const bool fresh = !closed[id.epoch] && !marks.contains(id);
    FUZZ_CHECK(ledger.Add(batch, skipped) == fresh);
    if (fresh) marks[id] = batch;
    if (closed[id.epoch]) continue;
    const auto mark = ledger.Find(id);
    FUZZ_CHECK(mark.has_value() && mark->fingerprint == marks[id].fingerprint);
    if (n % 16 == 0 || in.empty()) CheckPartition(ledger, marks, id.epoch, id.partition);
  }
  for (uint32_t epoch = 0; epoch < 3; ++epoch) {
    for (uint32_t partition = 0; partition < 2 && !closed[epoch]; ++partition) CheckPartition(ledger, marks, epoch, partition);
  }
  const std::string written = ledger.Snapshot();
  const auto read = Ledger::Parse(written);
  FUZZ_CHECK(read.ok() && read->Snapshot() == written);
}

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ballast::fuzz::Input in(data, size);
  if (in.Bool()) {
    ballast::Snapshot(in.rest());
  } else {
    ballast::Marks(in);
  }
  return 0;
}
