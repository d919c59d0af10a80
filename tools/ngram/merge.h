// Sorted rows out of many row files, in suffix order: one open block of each file is in memory. One thread at a time for each object.
#ifndef BALLAST_TOOLS_NGRAM_MERGE_H_
#define BALLAST_TOOLS_NGRAM_MERGE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/ngram/row_stream.h"

namespace ballast::ngram {

// The rows of one kind and order of one file.
class RowCursor {
 public:
  // `reader` may be shared with cursors of other kinds and orders, and of other threads.
  RowCursor(std::shared_ptr<const RowReader> reader, std::vector<RowReader::Place> places);

  // Before the first row at first. False at the end. Errors: DataLoss, also when a row is not after the one before it.
  absl::StatusOr<bool> Next();
  const WordId* words() const { return block_.row(row_); }
  const uint32_t* values() const { return block_.values(row_); }

 private:
  std::shared_ptr<const RowReader> reader_;
  const std::vector<RowReader::Place> places_;
  size_t next_place_ = 0;
  Block block_;
  size_t row_ = 0;
  std::vector<WordId> before_;  // The last row of the block before.
};

// Files whose rows of each kind and order are sorted.
class RowFiles {
 public:
  static absl::StatusOr<RowFiles> Open(const std::vector<std::string>& paths);

  const Header& header() const { return readers_.front()->header(); }
  std::vector<RowCursor> Cursors(RowKind kind, int n) const;
  uint64_t Rows(RowKind kind, int n) const;

 private:
  std::vector<std::shared_ptr<const RowReader>> readers_;
  std::vector<std::vector<RowReader::Place>> places_;
};

// Merges cursors; the same words in several files come out one after the other.
class RowMerger {
 public:
  RowMerger(std::vector<RowCursor> cursors, int n);

  absl::StatusOr<bool> Next();
  const WordId* words() const { return cursors_[heap_.front()].words(); }
  const uint32_t* values() const { return cursors_[heap_.front()].values(); }

 private:
  bool After(size_t a, size_t b) const { return CompareWords(cursors_[a].words(), cursors_[b].words(), n_) > 0; }
  void SinkFront();
  absl::Status Start();

  std::vector<RowCursor> cursors_;
  std::vector<size_t> heap_;  // Indices of cursors that have a row; the least row is in front.
  const int n_;
  bool started_ = false;
};

// Tuples of sorted runs; counts of equal ones are added up.
absl::Status MergeTuples(const std::vector<std::string>& runs, int order,
                         const std::function<absl::Status(const WordId* row, uint64_t count)>& on_tuple);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_MERGE_H_
