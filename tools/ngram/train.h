// Text to a model on one machine: all stages in one process, two shards at a time, in bounded memory. docs/NGRAM.md, "Stages".
#ifndef BALLAST_TOOLS_NGRAM_TRAIN_H_
#define BALLAST_TOOLS_NGRAM_TRAIN_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tools/ngram/adjust.h"
#include "tools/ngram/allowed_words.h"
#include "tools/ngram/counter.h"
#include "tools/ngram/plan.h"
#include "tools/ngram/scratch.h"

namespace ballast::ngram {

struct TrainOptions {
  std::vector<std::string> texts;
  std::string arpa;
  CounterOptions counter;
  PlanOptions plan;         // shards 0: as many as the memory asks for.
  std::string limit_vocab;  // A file: n-grams with a word that is not in it are pruned; empty: none.
  Header smoothing;         // Order, thresholds, vocab_pad, interpolate_unigrams.
  std::optional<Discounts> fallback;
  bool compat_lmplz = false;
};

// One run of the stages. Run is called once.
class Training {
 public:
  explicit Training(TrainOptions options);
  [[nodiscard]] absl::Status Run();

 private:
  absl::Status Count();
  absl::Status Split();
  absl::Status Adjust();
  absl::Status EstimateZero();
  absl::Status Estimate();
  absl::Status Join();

  Header ShardHeader(int level) const;
  std::string Path(const char* stage, const ShardId& shard) const;
  absl::Status AdjustOne(const ShardId& shard) const;
  absl::Status EstimateOne(const ShardId& shard) const;

  TrainOptions options_;
  std::unique_ptr<Scratch> scratch_;
  Vocabulary vocabulary_;
  std::shared_ptr<const AllowedWords> allowed_;
  uint64_t tuples_ = 0;
  Plan plan_;
  std::vector<ShardId> shards_;  // With at least one tuple.
  std::vector<Discounts> discounts_;
  std::vector<ValueRows<float>> zeros_;  // [level]: probabilities of the 0-shard of each level.
  std::vector<std::string> estimated_;   // Files.
  Totals totals_;
};

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_TRAIN_H_
