#include "tools/ngram/arpa_writer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/ngram/number.h"

namespace ballast::ngram {
namespace {

void AppendNumber(float value, std::string& line) {
  char text[kDecimalBytesMax];
  line.append(text, static_cast<size_t>(WriteShortestDecimal(value, text) - text));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ArpaWriter>> ArpaWriter::Create(const std::string& path, const Vocabulary& vocabulary,
                                                               const std::vector<uint64_t>& rows) {
  absl::StatusOr<std::unique_ptr<OutputFile>> file = OutputFile::Create(path);
  if (!file.ok()) return file.status();
  std::string head = "\\data\\\n";
  for (size_t i = 0; i < rows.size(); ++i) absl::StrAppend(&head, "ngram ", i + 1, "=", rows[i], "\n");
  if (absl::Status written = (*file)->Write(head); !written.ok()) return written;
  return std::unique_ptr<ArpaWriter>(new ArpaWriter(*std::move(file), vocabulary, rows));
}

absl::Status ArpaWriter::BeginOrders(int n) {
  while (n_ < n) {
    if (absl::Status written = file_->Write(absl::StrCat("\n\\", ++n_, "-grams:\n")); !written.ok()) return written;
  }
  return absl::OkStatus();
}

absl::Status ArpaWriter::Add(int n, const WordId* words, float log_p, float log_backoff) {
  if (n != n_) {
    if (absl::Status begun = BeginOrders(n); !begun.ok()) return begun;
  }
  ++written_[static_cast<size_t>(n - 1)];
  line_.clear();
  AppendNumber(log_p, line_);
  char separator = '\t';
  for (int i = n - 1; i >= 0; --i) {
    line_ += std::exchange(separator, ' ');
    line_ += vocabulary_.Word(words[i]);
  }
  if (n < static_cast<int>(rows_.size())) {
    line_ += '\t';
    AppendNumber(log_backoff, line_);
  }
  line_ += '\n';
  return file_->Write(line_);
}

absl::Status ArpaWriter::Finish() {
  if (absl::Status begun = BeginOrders(static_cast<int>(rows_.size())); !begun.ok()) return begun;
  if (written_ != rows_) return absl::InternalError("other numbers of n-grams than the head of the ARPA file says");
  if (absl::Status written = file_->Write("\n\\end\\\n"); !written.ok()) return written;
  return file_->Commit();
}

}  // namespace ballast::ngram
