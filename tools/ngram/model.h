// A model in memory: the rows of an ARPA file, with look-up and scoring. Constant once Finish was called; then any thread.
#ifndef BALLAST_TOOLS_NGRAM_MODEL_H_
#define BALLAST_TOOLS_NGRAM_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/ngram/vocabulary.h"

namespace ballast::ngram {

// The n-grams of one order in suffix order. In double: entropy pruning subtracts numbers of seven digits that agree in five.
struct ModelOrder {
  int n = 0;
  std::vector<WordId> words;  // [size() * n], last word first.
  std::vector<double> log_p;
  std::vector<double> log_backoff;
  std::vector<uint32_t> first;  // [word]: the first row that ends in it, and one more; after Finish.

  size_t size() const { return log_p.size(); }
  const WordId* row(size_t i) const { return words.data() + i * static_cast<size_t>(n); }
};

class Model {
 public:
  static constexpr int64_t kMissing = -1;

  Model() = default;
  Model(int order, Vocabulary vocabulary);

  // Rows in any order; words last one first.
  void Add(int n, const WordId* words, double log_p, double log_backoff);
  // Sorts. Errors: DataLoss when an n-gram is there twice.
  [[nodiscard]] absl::Status Finish();

  int order() const { return static_cast<int>(orders_.size()); }
  const ModelOrder& of(int n) const { return orders_[static_cast<size_t>(n - 1)]; }
  ModelOrder& of(int n) { return orders_[static_cast<size_t>(n - 1)]; }
  const Vocabulary& vocabulary() const { return vocabulary_; }

  // Row of an n-gram, or kMissing.
  int64_t Find(int n, const WordId* words) const;
  // log10 p of words[0] after words[1], words[2], ... (the nearest first; `n` words in all): backs off as ARPA says. In double.
  double Score(const WordId* words, int n) const;

  // Errors: NotFound, Unavailable; DataLoss with the line that is wrong.
  static absl::StatusOr<Model> LoadArpa(const std::string& path);
  // As float32, in shortest decimals.
  [[nodiscard]] absl::Status SaveArpa(const std::string& path) const;

  // kModel rows in suffix order; the words are in the vocabulary.
  static absl::StatusOr<Model> LoadRows(const std::string& path, Vocabulary vocabulary);
  [[nodiscard]] absl::Status SaveRows(const std::string& path) const;

 private:
  std::vector<ModelOrder> orders_;
  Vocabulary vocabulary_;
};

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_MODEL_H_
