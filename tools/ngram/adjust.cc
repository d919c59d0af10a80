#include "tools/ngram/adjust.h"

#include <algorithm>
#include <utility>

#include "tools/ngram/contexts.h"
#include "tools/ngram/gram_source.h"
#include "tools/ngram/smoothing.h"

namespace ballast::ngram {
namespace {

absl::Status WriteCount(const Grams& grams, size_t g, RowWriter& out) {
  uint32_t values[4];
  StoreCount(grams.adjusted[g], values);
  StoreCount(grams.raw[g], values + 2);
  return out.Add(RowKind::kCount, grams.order, grams.words(g), values);
}

absl::Status WriteCollapsed(const Grams& grams, const Contexts& contexts, const Cutoff& cutoff, RowWriter& out) {
  for (size_t g = 0; g < grams.size(); ++g) {
    if (IsPruned(grams, g, cutoff)) continue;
    if (absl::Status added = WriteCount(grams, g, out); !added.ok()) return added;
  }
  const std::vector<ContextSums> sums = SumsOf(grams, contexts, cutoff);
  for (size_t c = 0; c < contexts.size(); ++c) {
    if (sums[c].pruned == 0 || !sums[c].any_kept()) continue;
    const WordId* context = grams.words(contexts.sample[c]) + 1;
    if (absl::Status added = out.AddCount(RowKind::kWildcard, grams.order - 1, context, sums[c].pruned); !added.ok()) return added;
  }
  return absl::OkStatus();
}

absl::Status WriteCensus(const Census& census, int level, RowWriter& out) {
  for (int n = level + 1; n <= static_cast<int>(census.size()); ++n) {
    uint32_t values[8];
    for (size_t j = 0; j < 4; ++j) StoreCount(census[static_cast<size_t>(n - 1)][j], values + 2 * j);
    if (absl::Status added = out.Add(RowKind::kCensus, n, nullptr, values); !added.ok()) return added;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status AdjustShard(Shard shard, const AdjustOptions& options, RowWriter& out) {
  const Header header = shard.header;
  const std::shared_ptr<const AllowedWords> allowed = shard.allowed;
  if (header.level == 0)
    return absl::InvalidArgumentError("shards to count are of level 1 or more: all n-grams of a level-1 shard share a word");
  if (shard.tuples.size() == 0) return absl::OkStatus();
  std::vector<WordId> last(shard.tuples.row(shard.tuples.size() - 1), shard.tuples.row(shard.tuples.size() - 1) + header.order);
  const int last_length = GramLength(last.data(), header.order);
  std::vector<uint32_t> last_counts(4 * static_cast<size_t>(header.order - 1), 0);
  absl::StatusOr<GramSource> source = GramSource::Create(std::move(shard));
  if (!source.ok()) return source.status();

  Census census(static_cast<size_t>(header.order));
  Contexts contexts;
  for (int n = 1; n <= header.order; ++n) {
    const Grams grams = source->Next();
    if (options.collapse) {
      Contexts next = n == 1 ? UnigramContexts(grams) : ContextsOf(grams, contexts);
      contexts = std::move(next);
    }
    if (n < header.level) continue;
    if (n == header.level) {
      for (size_t g = 0; g < grams.size(); ++g) {
        if (absl::Status added = WriteCount(grams, g, out); !added.ok()) return added;
      }
      continue;
    }
    for (const uint64_t adjusted : grams.adjusted) AddToCensus(census, n, adjusted);
    // The last tuple in suffix order ends in the last n-gram of each order that it has.
    if (n < header.order && n <= last_length) {
      StoreCount(grams.adjusted.back(), &last_counts[4 * static_cast<size_t>(n - 1)]);
      StoreCount(grams.raw.back(), &last_counts[4 * static_cast<size_t>(n - 1) + 2]);
    }
    if (options.collapse) {
      if (absl::Status written = WriteCollapsed(grams, contexts, {header.Threshold(n), allowed.get()}, out); !written.ok()) return written;
    }
  }
  if (absl::Status written = WriteCensus(census, header.level, out); !written.ok()) return written;
  return out.Add(RowKind::kLast, header.order, last.data(), last_counts.data());
}

Totals::Totals(int order) : order_(order), census_(static_cast<size_t>(order)) {
  for (int n = 1; n < order; ++n) {
    counts_.emplace_back();
    counts_.back().rows.order = n;
  }
}

absl::Status Totals::Add(RowReader& reader) {
  if (reader.header().order != order_) return absl::InvalidArgumentError("shards of models of several orders");
  const int level = reader.header().level;
  Block block;
  while (true) {
    absl::StatusOr<bool> more = reader.Next(block);
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    if (block.kind == RowKind::kCount && block.n != level) continue;  // Collapsed rows.
    for (uint32_t i = 0; i < block.rows; ++i) {
      if (absl::Status added = AddRow(block, i); !added.ok()) return added;
    }
  }
}

absl::Status Totals::AddLast(const Block& block, size_t i) {
  const size_t bytes = static_cast<size_t>(order_) * sizeof(WordId);
  if (!lasts_.emplace(reinterpret_cast<const char*>(block.row(i)), bytes).second)
    return absl::InvalidArgumentError("a shard was given twice: two of them end in the same tuple");
  if (last_.empty() || CompareWords(last_.data(), block.row(i), order_) < 0) last_.assign(block.row(i), block.row(i) + block.stride);
  return absl::OkStatus();
}

absl::Status Totals::AddRow(const Block& block, size_t i) {
  const uint32_t* values = block.values(i);
  if (block.kind == RowKind::kCensus) {
    for (size_t j = 0; j < 4; ++j) census_[static_cast<size_t>(block.n - 1)][j] += LoadCount(values + 2 * j);
  } else if (block.kind == RowKind::kCount && block.n < order_) {
    counts_[static_cast<size_t>(block.n - 1)].Add(block.row(i), LoadCount(values), LoadCount(values + 2));
  } else if (block.kind == RowKind::kLast) {
    return AddLast(block, i);
  }
  return absl::OkStatus();
}

void Totals::Finish(bool compat_lmplz) {
  // A shard of level k has only counted k-grams; what went on to it counts in the lower orders as well.
  for (size_t n = counts_.size(); n >= 1; --n) {
    CountRows& counts = counts_[n - 1];
    SortAndCombine(counts);
    for (size_t i = 0; i < counts.rows.size(); ++i) {
      AddToCensus(census_, counts.rows.order, counts.adjusted[i]);
      if (n > 1) counts_[n - 2].Add(counts.rows.row(i), 1, counts.rows.counts[i]);
    }
  }
  if (compat_lmplz && !last_.empty()) MoveLast();
}

void Totals::MoveLast() {
  const int length = GramLength(last_.data(), order_);
  for (int n = 1; n < order_ && n <= length; ++n) {
    const uint32_t* values = last_.data() + order_ + 4 * (n - 1);
    uint64_t adjusted = LoadCount(values), raw = LoadCount(values + 2);
    if (raw == 0) {
      // Not in the last tuple's shard, so in the sums, where it is the last one too: every n-gram there is a suffix of some tuple.
      const CountRows& counts = counts_[static_cast<size_t>(n - 1)];
      adjusted = counts.adjusted.back();
      raw = counts.rows.counts.back();
    }
    AddToCensus(census_, n, adjusted, ~uint64_t{0});
    AddToCensus(census_, n, raw);
  }
}

}  // namespace ballast::ngram
