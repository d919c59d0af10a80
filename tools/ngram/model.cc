#include "tools/ngram/model.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/ngram/arpa_writer.h"
#include "tools/ngram/row.h"
#include "tools/ngram/row_stream.h"
#include "tools/ngram/tuples.h"

namespace ballast::ngram {
namespace {

absl::Status SortOrder(ModelOrder& order, size_t vocabulary) {
  ModelOrder sorted{order.n, {}, {}, {}, {}};
  sorted.words.reserve(order.words.size());
  for (const size_t i : SuffixOrder(order.words, order.n)) {
    if (sorted.size() > 0 && CompareWords(sorted.row(sorted.size() - 1), order.row(i), order.n) == 0)
      return absl::DataLossError(absl::StrCat("the model has an n-gram of order ", order.n, " twice"));
    sorted.words.insert(sorted.words.end(), order.row(i), order.row(i) + order.n);
    sorted.log_p.push_back(order.log_p[i]);
    sorted.log_backoff.push_back(order.log_backoff[i]);
  }
  sorted.first.assign(vocabulary + 1, 0);
  for (size_t i = 0; i < sorted.size(); ++i) ++sorted.first[sorted.row(i)[0] + 1];
  for (size_t w = 1; w < sorted.first.size(); ++w) sorted.first[w] += sorted.first[w - 1];
  order = std::move(sorted);
  return absl::OkStatus();
}

}  // namespace

Model::Model(int order, Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {
  for (int n = 1; n <= order; ++n) {
    orders_.emplace_back();
    orders_.back().n = n;
  }
}

void Model::Add(int n, const WordId* words, double log_p, double log_backoff) {
  ModelOrder& order = of(n);
  order.words.insert(order.words.end(), words, words + n);
  order.log_p.push_back(log_p);
  order.log_backoff.push_back(log_backoff);
}

absl::Status Model::Finish() {
  for (ModelOrder& order : orders_) {
    if (absl::Status sorted = SortOrder(order, vocabulary_.size()); !sorted.ok()) return sorted;
  }
  return absl::OkStatus();
}

int64_t Model::Find(int n, const WordId* words) const {
  const ModelOrder& order = of(n);
  uint32_t low = order.first[words[0]], high = order.first[words[0] + 1];
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    const int compared = CompareWords(order.row(middle), words, n);
    if (compared == 0) return middle;
    (compared < 0 ? low : high) = compared < 0 ? middle + 1 : middle;
  }
  return kMissing;
}

double Model::Score(const WordId* words, int n) const {
  double backoff = 0;
  for (n = std::min(n, order()); n > 1; --n) {
    if (const int64_t row = Find(n, words); row != kMissing) return backoff + of(n).log_p[static_cast<size_t>(row)];
    const int64_t context = Find(n - 1, words + 1);
    if (context != kMissing) backoff += of(n - 1).log_backoff[static_cast<size_t>(context)];
  }
  const int64_t row = Find(1, words);
  return backoff + of(1).log_p[static_cast<size_t>(row == kMissing ? 0 : row)];
}

absl::Status Model::SaveArpa(const std::string& path) const {
  std::vector<uint64_t> rows;
  for (const ModelOrder& order : orders_) rows.push_back(order.size());
  absl::StatusOr<std::unique_ptr<ArpaWriter>> writer = ArpaWriter::Create(path, vocabulary_, rows);
  if (!writer.ok()) return writer.status();
  for (const ModelOrder& order : orders_) {
    for (size_t i = 0; i < order.size(); ++i) {
      const float log_p = static_cast<float>(order.log_p[i]), log_backoff = static_cast<float>(order.log_backoff[i]);
      if (absl::Status added = (*writer)->Add(order.n, order.row(i), log_p, log_backoff); !added.ok()) return added;
    }
  }
  return (*writer)->Finish();
}

absl::StatusOr<Model> Model::LoadRows(const std::string& path, Vocabulary vocabulary) {
  absl::StatusOr<std::unique_ptr<RowReader>> reader = RowReader::Open(path);
  if (!reader.ok()) return reader.status();
  Model model((*reader)->header().order, std::move(vocabulary));
  Block block;
  while (true) {
    absl::StatusOr<bool> more = (*reader)->Next(block);
    if (!more.ok()) return more.status();
    if (!*more) break;
    if (block.kind != RowKind::kModel) return absl::InvalidArgumentError(absl::StrCat(path, " holds other rows than those of a model"));
    for (uint32_t i = 0; i < block.rows; ++i) {
      for (int j = 0; j < block.n; ++j) {
        if (block.row(i)[j] >= model.vocabulary().size())
          return absl::DataLossError(absl::StrCat(path, " has words that the vocabulary lacks"));
      }
      model.Add(block.n, block.row(i), LoadFloat(block.values(i)), LoadFloat(block.values(i) + 1));
    }
  }
  if (absl::Status finished = model.Finish(); !finished.ok()) return finished;
  return model;
}

absl::Status Model::SaveRows(const std::string& path) const {
  Header header;
  header.order = order();
  absl::StatusOr<std::unique_ptr<RowWriter>> writer = RowWriter::Create(path, header);
  if (!writer.ok()) return writer.status();
  for (const ModelOrder& order : orders_) {
    for (size_t i = 0; i < order.size(); ++i) {
      uint32_t values[2];
      StoreFloat(static_cast<float>(order.log_p[i]), values);
      StoreFloat(static_cast<float>(order.log_backoff[i]), values + 1);
      if (absl::Status added = (*writer)->Add(RowKind::kModel, order.n, order.row(i), values); !added.ok()) return added;
    }
  }
  return (*writer)->Finish();
}

}  // namespace ballast::ngram
