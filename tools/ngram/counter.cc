#include "tools/ngram/counter.h"

#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/ngram/lines.h"
#include "tools/ngram/merge.h"
#include "tools/ngram/row_stream.h"
#include "tools/ngram/sentences.h"
#include "tools/ngram/tuples.h"

namespace ballast::ngram {
namespace {

// Passes on the rows of a sorted buffer, equal ones added up.
absl::Status ForEachDistinct(const std::vector<WordId>& rows, int order, const OnTuple& on_tuple) {
  const size_t stride = static_cast<size_t>(order);
  for (size_t i = 0; i < rows.size();) {
    const size_t begin = i;
    do {
      i += stride;
    } while (i < rows.size() && CompareWords(&rows[begin], &rows[i], order) == 0);
    if (absl::Status passed = on_tuple(&rows[begin], (i - begin) / stride); !passed.ok()) return passed;
  }
  return absl::OkStatus();
}

}  // namespace

Counter::Counter(CounterOptions options) : options_(std::move(options)), history_(static_cast<size_t>(options_.order), kBos) {
  // Pages that are never written cost nothing.
  rows_.reserve(options_.memory_bytes_max / sizeof(WordId));
}

Counter::~Counter() {
  for (const std::string& run : runs_) unlink(run.c_str());
}

absl::Status Counter::LoadIds() {
  absl::StatusOr<Vocabulary> vocabulary = Vocabulary::Load(options_.ids);
  if (!vocabulary.ok()) return vocabulary.status();
  vocabulary_ = *std::move(vocabulary);
  return absl::OkStatus();
}

absl::Status Counter::AddText(const std::string& path) {
  if (!options_.ids.empty() && sentences_ == 0) {
    if (absl::Status loaded = LoadIds(); !loaded.ok()) return loaded;
  }
  absl::StatusOr<std::unique_ptr<InputFile>> file = InputFile::Open(path);
  if (!file.ok()) return file.status();
  LineReader lines(**file);
  std::string line;
  for (uint64_t number = 1;; ++number) {
    absl::StatusOr<bool> more = lines.Next(line);
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    if (absl::Status added = AddLine(line, path, number); !added.ok()) return added;
  }
}

absl::Status Counter::AddLine(const std::string& line, const std::string& path, uint64_t number) {
  // A word takes two bytes of a line at least.
  const size_t most = (line.size() / 2 + 2) * history_.size();
  if (!rows_.empty() && rows_.size() + most > options_.memory_bytes_max / sizeof(WordId)) {
    if (absl::Status spilled = Spill(); !spilled.ok()) return spilled;
  }
  std::fill(history_.begin(), history_.end(), kBos);
  absl::string_view reserved, unknown;
  ForEachWord(line, [&](absl::string_view word) {
    if (IsReserved(word)) {
      if (!options_.skip_symbols) reserved = word;
      return;
    }
    const WordId id = options_.ids.empty() ? vocabulary_.Add(word) : vocabulary_.Find(word);
    if (id == kUnk) unknown = word;
    AddTuple(id);
  });
  if (!unknown.empty())
    return absl::InvalidArgumentError(absl::StrCat("the word ", unknown, " of ", path == "-" ? "standard input" : path, " line ", number,
                                                   " is not in ", options_.ids, ": the text is another one than that of the vocabulary"));
  if (!reserved.empty())
    return absl::InvalidArgumentError(absl::StrCat(path == "-" ? "standard input" : path, " line ", number, " holds the word ", reserved,
                                                   ", which has a meaning of its own; --skip-symbols takes it as white space"));
  AddTuple(kEos);
  ++sentences_;
  return absl::OkStatus();
}

void Counter::AddTuple(WordId word) {
  std::move_backward(history_.begin(), history_.end() - 1, history_.end());
  history_[0] = word;
  rows_.insert(rows_.end(), history_.begin(), history_.end());
  ++tokens_;
}

absl::Status Counter::Spill() {
  SortRows(options_.order, rows_);
  const std::string run = absl::StrCat(options_.scratch, "/run.", getpid(), ".", runs_.size());
  runs_.push_back(run);
  Header header;
  header.order = options_.order;
  absl::StatusOr<std::unique_ptr<RowWriter>> writer = RowWriter::Create(run, header);
  if (!writer.ok()) return writer.status();
  const OnTuple write = [&](const WordId* row, uint64_t count) { return (*writer)->AddCount(RowKind::kTuple, options_.order, row, count); };
  if (absl::Status written = ForEachDistinct(rows_, options_.order, write); !written.ok()) return written;
  rows_.clear();
  return (*writer)->Finish();
}

absl::Status Counter::Finish(const OnTuple& on_tuple) {
  if (sentences_ == 0) return absl::InvalidArgumentError("the text is empty: not one line");
  if (runs_.empty()) {
    SortRows(options_.order, rows_);
    return ForEachDistinct(rows_, options_.order, on_tuple);
  }
  if (!rows_.empty()) {
    if (absl::Status spilled = Spill(); !spilled.ok()) return spilled;
  }
  std::vector<WordId>().swap(rows_);
  return MergeTuples(runs_, options_.order, on_tuple);
}

}  // namespace ballast::ngram
