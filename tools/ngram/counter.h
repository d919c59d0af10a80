// Text to tuples in bounded memory: word ids are buffered, sorted, combined and spilled as runs; Finish merges the runs. One thread at a
// time (the sort uses a second one).
#ifndef BALLAST_TOOLS_NGRAM_COUNTER_H_
#define BALLAST_TOOLS_NGRAM_COUNTER_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "tools/ngram/row.h"
#include "tools/ngram/vocabulary.h"

namespace ballast::ngram {

struct CounterOptions {
  int order = 0;
  size_t memory_bytes_max = size_t{1} << 30;  // Of the buffer; the vocabulary comes on top.
  std::string scratch;                        // A folder for the runs.
  bool skip_symbols = false;                  // Take <s>, </s> and <unk> in the text as white space.
  std::string ids;                            // A vocabulary file that has every word of the text; empty: ids by first appearance.
};

// Gets every distinct tuple once, in suffix order.
using OnTuple = std::function<absl::Status(const WordId* row, uint64_t count)>;

class Counter {
 public:
  explicit Counter(CounterOptions options);
  ~Counter();

  // Adds a text; "-" is standard input. Errors: InvalidArgument with file and line for a reserved word, or for one that `ids` lacks.
  [[nodiscard]] absl::Status AddText(const std::string& path);
  // Errors: InvalidArgument when there was no text at all.
  [[nodiscard]] absl::Status Finish(const OnTuple& on_tuple);

  const Vocabulary& vocabulary() const { return vocabulary_; }
  Vocabulary TakeVocabulary() && { return std::move(vocabulary_); }
  uint64_t sentences() const { return sentences_; }
  uint64_t tokens() const { return tokens_; }

 private:
  absl::Status LoadIds();
  absl::Status AddLine(const std::string& line, const std::string& path, uint64_t number);
  void AddTuple(WordId word);
  absl::Status Spill();

  const CounterOptions options_;
  Vocabulary vocabulary_;
  std::vector<WordId> rows_;     // Of `order` ids each.
  std::vector<WordId> history_;  // The last `order` words, last one first.
  std::vector<std::string> runs_;
  uint64_t sentences_ = 0, tokens_ = 0;
};

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_COUNTER_H_
