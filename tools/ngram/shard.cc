#include "tools/ngram/shard.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ballast::ngram {
namespace {

template <typename Value>
void Sort(ValueRows<Value>& rows) {
  if (rows.size() == 0) return;
  ValueRows<Value> sorted{rows.n, {}, {}};
  sorted.words.reserve(rows.words.size());
  sorted.values.reserve(rows.size());
  for (const size_t i : SuffixOrder(rows.words, rows.n)) sorted.Add(rows.row(i), rows.values[i]);
  rows = std::move(sorted);
}

absl::Status AddBlock(const Block& block, Shard& shard) {
  const size_t n = static_cast<size_t>(block.n);
  const bool fits = (block.kind == RowKind::kTuple && block.n == shard.header.order) ||
                    (block.kind == RowKind::kCount && block.n > shard.header.level) ||
                    (block.kind == RowKind::kWildcard && block.n >= shard.header.level) ||
                    (block.kind == RowKind::kProb && block.n == shard.header.level);
  if (!fits)
    return absl::InvalidArgumentError(absl::StrCat("rows of kind '", std::string(1, static_cast<char>(block.kind)), "' and order ", block.n,
                                                   " are no part of a shard of level ", shard.header.level, " and order ",
                                                   shard.header.order));
  for (uint32_t i = 0; i < block.rows; ++i) {
    const uint32_t* values = block.values(i);
    if (block.kind == RowKind::kTuple) shard.tuples.Add(block.row(i), LoadCount(values));
    if (block.kind == RowKind::kCount) shard.counts[n - 1].Add(block.row(i), LoadCount(values), LoadCount(values + 2));
    if (block.kind == RowKind::kWildcard) shard.wildcards[n].Add(block.row(i), LoadCount(values));
    if (block.kind == RowKind::kProb) shard.zero.Add(block.row(i), LoadFloat(values));
  }
  return absl::OkStatus();
}

}  // namespace

Shard EmptyShard(const Header& header) {
  Shard shard;
  shard.header = header;
  shard.tuples.order = header.order;
  for (int n = 1; n <= header.order; ++n) {
    shard.counts.emplace_back();
    shard.counts.back().rows.order = n;
  }
  for (int n = 0; n <= header.order; ++n) shard.wildcards.push_back({n, {}, {}});
  shard.zero.n = header.level;
  return shard;
}

absl::StatusOr<ValueRows<float>> ReadZero(const std::string& path, int n) {
  absl::StatusOr<std::unique_ptr<RowReader>> reader = RowReader::Open(path);
  if (!reader.ok()) return reader.status();
  ValueRows<float> zero{n, {}, {}};
  Block block;
  while (true) {
    absl::StatusOr<bool> more = (*reader)->Next(block);
    if (!more.ok()) return more.status();
    if (!*more) return zero;
    if (block.kind != RowKind::kProb || block.n != n) continue;
    for (uint32_t i = 0; i < block.rows; ++i) zero.Add(block.row(i), LoadFloat(block.values(i)));
  }
}

void SortAndCombine(CountRows& counts) {
  CountRows sorted;
  sorted.rows.order = counts.rows.order;
  for (const size_t i : SuffixOrder(counts.rows.words, counts.rows.order)) {
    const size_t last = sorted.rows.size();
    if (last > 0 && CompareWords(sorted.rows.row(last - 1), counts.rows.row(i), sorted.rows.order) == 0) {
      sorted.rows.counts[last - 1] += counts.rows.counts[i];
      sorted.adjusted[last - 1] += counts.adjusted[i];
    } else {
      sorted.Add(counts.rows.row(i), counts.adjusted[i], counts.rows.counts[i]);
    }
  }
  counts = std::move(sorted);
}

absl::StatusOr<Shard> ReadShard(RowReader& reader) {
  Shard shard = EmptyShard(reader.header());
  Block block;
  bool counted = false;
  while (true) {
    absl::StatusOr<bool> more = reader.Next(block);
    if (!more.ok()) return more.status();
    if (!*more) break;
    counted |= block.kind == RowKind::kCount || block.kind == RowKind::kWildcard;
    if (absl::Status added = AddBlock(block, shard); !added.ok()) return added;
  }
  if (counted && shard.tuples.size() > 0) return absl::InvalidArgumentError("a shard is either tuples or counted n-grams, not both");
  SortAndCombine(shard.tuples);
  for (CountRows& counts : shard.counts) SortAndCombine(counts);
  for (ValueRows<uint64_t>& wildcards : shard.wildcards) {
    if (wildcards.n > 0) Sort(wildcards);
  }
  if (shard.zero.n > 0) Sort(shard.zero);
  return shard;
}

}  // namespace ballast::ngram
