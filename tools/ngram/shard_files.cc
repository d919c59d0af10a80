#include "tools/ngram/shard_files.h"

#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/ngram/row_stream.h"

namespace ballast::ngram {

absl::Status ForEachTuple(const std::string& path, const std::function<absl::Status(const WordId* row, uint64_t count)>& on_tuple) {
  absl::StatusOr<std::unique_ptr<RowReader>> reader = RowReader::Open(path);
  if (!reader.ok()) return reader.status();
  Block block;
  while (true) {
    absl::StatusOr<bool> more = (*reader)->Next(block);
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    if (block.kind != RowKind::kTuple || block.n != (*reader)->header().order)
      return absl::InvalidArgumentError(absl::StrCat(path, " holds other rows than tuples"));
    for (uint32_t i = 0; i < block.rows; ++i) {
      if (absl::Status passed = on_tuple(block.row(i), LoadCount(block.values(i))); !passed.ok()) return passed;
    }
  }
}

absl::StatusOr<Plan> PlanTuples(const std::string& tuples, const PlanOptions& options) {
  absl::StatusOr<std::unique_ptr<RowReader>> reader = RowReader::Open(tuples);
  if (!reader.ok()) return reader.status();
  const int order = (*reader)->header().order;
  return Plan::Make(order, options, [&](const std::function<void(const WordId*)>& on_row) {
    std::vector<WordId> before;
    return ForEachTuple(tuples, [&](const WordId* row, uint64_t) {
      if (!before.empty() && CompareWords(before.data(), row, order) >= 0)
        return absl::InvalidArgumentError(absl::StrCat(tuples, " is not in suffix order: n-grams cannot be counted in passing"));
      before.assign(row, row + order);
      on_row(row);
      return absl::OkStatus();
    });
  });
}

std::string ShardPath(const std::string& folder, const ShardId& shard) { return absl::StrCat(folder, "/", shard.level, ".", shard.shard); }

absl::StatusOr<std::vector<ShardId>> SplitTuples(const std::string& tuples, const Plan& plan, const std::string& folder,
                                                 const Header* head) {
  Header header;
  if (head != nullptr) header = *head;
  header.order = plan.order();
  std::vector<ShardId> shards;
  std::map<std::pair<int, uint32_t>, std::unique_ptr<RowWriter>> writers;
  absl::Status split = ForEachTuple(tuples, [&](const WordId* row, uint64_t count) -> absl::Status {
    const ShardId shard = plan.Find(row);
    std::unique_ptr<RowWriter>& writer = writers[{shard.level, shard.shard}];
    if (writer == nullptr) {
      header.level = shard.level;
      absl::StatusOr<std::unique_ptr<RowWriter>> created = RowWriter::Create(ShardPath(folder, shard), header);
      if (!created.ok()) return created.status();
      writer = *std::move(created);
      shards.push_back(shard);
    }
    return writer->AddCount(RowKind::kTuple, plan.order(), row, count);
  });
  if (!split.ok()) return split;
  for (auto& [shard, writer] : writers) {
    if (absl::Status finished = writer->Finish(); !finished.ok()) return finished;
  }
  return shards;
}

}  // namespace ballast::ngram
