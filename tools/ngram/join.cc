#include "tools/ngram/join.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "tools/ngram/arpa_writer.h"

namespace ballast::ngram {
namespace {

// log10 of float32, as the reference computes it: rounding may lift a probability over 1.
float LogProbability(float p) { return std::min(0.0f, std::log10(p)); }

}  // namespace

absl::Status JoinOrder(const RowFiles& shards, int n, const OnModelRow& on_row) {
  RowMerger probabilities(shards.Cursors(RowKind::kProb, n), n);
  RowMerger backoffs(shards.Cursors(RowKind::kBackoff, n), n);
  absl::StatusOr<bool> backoff_there = backoffs.Next();
  std::vector<WordId> before;
  while (true) {
    absl::StatusOr<bool> more = probabilities.Next();
    if (!more.ok()) return more.status();
    if (!backoff_there.ok()) return backoff_there.status();
    const int order = !*more ? 1 : !*backoff_there ? -1 : CompareWords(probabilities.words(), backoffs.words(), n);
    if (order > 0 && *backoff_there) return absl::DataLossError(absl::StrCat("a backoff of order ", n, " has no n-gram"));
    if (!*more) return absl::OkStatus();
    if (!before.empty() && CompareWords(before.data(), probabilities.words(), n) == 0)
      return absl::DataLossError(absl::StrCat("two shards have the same n-gram of order ", n));
    before.assign(probabilities.words(), probabilities.words() + n);
    float log_backoff = 0;
    if (order == 0) log_backoff = std::log10(LoadFloat(backoffs.values()));
    const float log_p = LogProbability(LoadFloat(probabilities.values()));
    if (absl::Status passed = on_row(n, probabilities.words(), log_p, log_backoff); !passed.ok()) return passed;
    if (order == 0) backoff_there = backoffs.Next();
  }
}

absl::Status JoinToArpa(const RowFiles& shards, const Vocabulary& vocabulary, const std::string& path) {
  absl::StatusOr<std::unique_ptr<ArpaWriter>> arpa = ArpaWriter::Create(path, vocabulary, CountJoined(shards));
  if (!arpa.ok()) return arpa.status();
  const OnModelRow write = [&](int n, const WordId* words, float log_p, float log_backoff) {
    return (*arpa)->Add(n, words, log_p, log_backoff);
  };
  for (int n = 1; n <= shards.header().order; ++n) {
    if (absl::Status joined = JoinOrder(shards, n, write); !joined.ok()) return joined;
  }
  return (*arpa)->Finish();
}

absl::Status JoinToRows(const RowFiles& shards, const std::string& path) {
  absl::StatusOr<std::unique_ptr<RowWriter>> rows = RowWriter::Create(path, shards.header());
  if (!rows.ok()) return rows.status();
  const OnModelRow write = [&](int n, const WordId* words, float log_p, float log_backoff) {
    uint32_t values[2];
    StoreFloat(log_p, values);
    StoreFloat(log_backoff, values + 1);
    return (*rows)->Add(RowKind::kModel, n, words, values);
  };
  for (int n = 1; n <= shards.header().order; ++n) {
    if (absl::Status joined = JoinOrder(shards, n, write); !joined.ok()) return joined;
  }
  return (*rows)->Finish();
}

std::vector<uint64_t> CountJoined(const RowFiles& shards) {
  std::vector<uint64_t> rows;
  for (int n = 1; n <= shards.header().order; ++n) rows.push_back(shards.Rows(RowKind::kProb, n));
  return rows;
}

}  // namespace ballast::ngram
