#include "tools/ngram/merge.h"

#include <algorithm>
#include <utility>

namespace ballast::ngram {

RowCursor::RowCursor(std::shared_ptr<const RowReader> reader, std::vector<RowReader::Place> places)
    : reader_(std::move(reader)), places_(std::move(places)) {}

absl::StatusOr<bool> RowCursor::Next() {
  const int n = WordUnits(block_.kind, block_.n);
  if (row_ + 1 < block_.rows) {
    ++row_;
    if (CompareWords(block_.row(row_ - 1), block_.row(row_), n) < 0) return true;
    return absl::DataLossError("rows that must be in suffix order are not");
  }
  if (next_place_ == places_.size()) return false;
  if (block_.rows > 0) before_.assign(block_.row(row_), block_.row(row_) + n);
  if (absl::Status read = reader_->ReadAt(places_[next_place_++], block_); !read.ok()) return read;
  row_ = 0;
  if (block_.rows == 0) return Next();
  if (before_.empty() || CompareWords(before_.data(), block_.row(0), n) < 0) return true;
  return absl::DataLossError("rows that must be in suffix order are not, from one block to the next");
}

absl::StatusOr<RowFiles> RowFiles::Open(const std::vector<std::string>& paths) {
  RowFiles files;
  for (const std::string& path : paths) {
    absl::StatusOr<std::unique_ptr<RowReader>> reader = RowReader::Open(path);
    if (!reader.ok()) return reader.status();
    absl::StatusOr<std::vector<RowReader::Place>> places = (*reader)->Index();
    if (!places.ok()) return places.status();
    files.readers_.push_back(*std::move(reader));
    files.places_.push_back(*std::move(places));
  }
  if (files.readers_.empty()) return absl::InvalidArgumentError("no row files");
  return files;
}

std::vector<RowCursor> RowFiles::Cursors(RowKind kind, int n) const {
  std::vector<RowCursor> cursors;
  for (size_t i = 0; i < readers_.size(); ++i) {
    std::vector<RowReader::Place> mine;
    for (const RowReader::Place& place : places_[i]) {
      if (place.kind == kind && place.n == n) mine.push_back(place);
    }
    if (!mine.empty()) cursors.emplace_back(readers_[i], std::move(mine));
  }
  return cursors;
}

uint64_t RowFiles::Rows(RowKind kind, int n) const {
  uint64_t rows = 0;
  for (const std::vector<RowReader::Place>& places : places_) {
    for (const RowReader::Place& place : places) rows += place.kind == kind && place.n == n ? place.rows : 0;
  }
  return rows;
}

RowMerger::RowMerger(std::vector<RowCursor> cursors, int n) : cursors_(std::move(cursors)), n_(n) {}

absl::Status RowMerger::Start() {
  for (size_t i = 0; i < cursors_.size(); ++i) {
    absl::StatusOr<bool> more = cursors_[i].Next();
    if (!more.ok()) return more.status();
    if (*more) heap_.push_back(i);
  }
  std::make_heap(heap_.begin(), heap_.end(), [this](size_t a, size_t b) { return After(a, b); });
  return absl::OkStatus();
}

// The row in front changed: std::pop_heap and push_heap would compare twice as often.
void RowMerger::SinkFront() {
  const size_t moved = heap_[0];
  size_t hole = 0;
  while (true) {
    size_t child = 2 * hole + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && After(heap_[child], heap_[child + 1])) ++child;
    if (!After(moved, heap_[child])) break;
    heap_[hole] = heap_[child];
    hole = child;
  }
  heap_[hole] = moved;
}

absl::StatusOr<bool> RowMerger::Next() {
  if (!started_) {
    started_ = true;
    if (absl::Status started = Start(); !started.ok()) return started;
    return !heap_.empty();
  }
  absl::StatusOr<bool> more = cursors_[heap_.front()].Next();
  if (!more.ok()) return more.status();
  if (!*more) {
    heap_.front() = heap_.back();
    heap_.pop_back();
  }
  if (heap_.empty()) return false;
  SinkFront();
  return true;
}

absl::Status MergeTuples(const std::vector<std::string>& runs, int order,
                         const std::function<absl::Status(const WordId* row, uint64_t count)>& on_tuple) {
  absl::StatusOr<RowFiles> files = RowFiles::Open(runs);
  if (!files.ok()) return files.status();
  RowMerger merger(files->Cursors(RowKind::kTuple, order), order);
  std::vector<WordId> row;
  uint64_t count = 0;
  while (true) {
    absl::StatusOr<bool> more = merger.Next();
    if (!more.ok()) return more.status();
    const bool same = *more && !row.empty() && CompareWords(row.data(), merger.words(), order) == 0;
    if (!same && !row.empty()) {
      if (absl::Status passed = on_tuple(row.data(), count); !passed.ok()) return passed;
    }
    if (!*more) return absl::OkStatus();
    if (!same) {
      row.assign(merger.words(), merger.words() + order);
      count = 0;
    }
    count += LoadCount(merger.values());
  }
}

}  // namespace ballast::ngram
