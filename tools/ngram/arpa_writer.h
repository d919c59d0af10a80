// ARPA files. One thread at a time.
#ifndef BALLAST_TOOLS_NGRAM_ARPA_WRITER_H_
#define BALLAST_TOOLS_NGRAM_ARPA_WRITER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/ngram/file.h"
#include "tools/ngram/vocabulary.h"

namespace ballast::ngram {

class ArpaWriter {
 public:
  // `vocabulary` must outlive the writer; `rows`[n - 1] is the number of n-grams of order n.
  static absl::StatusOr<std::unique_ptr<ArpaWriter>> Create(const std::string& path, const Vocabulary& vocabulary,
                                                            const std::vector<uint64_t>& rows);

  // Rows by order, then in the order in which they shall stand; words last one first. The highest order has no backoff.
  [[nodiscard]] absl::Status Add(int n, const WordId* words, float log_p, float log_backoff);
  // Errors: Internal when there were not as many rows as announced.
  [[nodiscard]] absl::Status Finish();

 private:
  ArpaWriter(std::unique_ptr<OutputFile> file, const Vocabulary& vocabulary, const std::vector<uint64_t>& rows)
      : file_(std::move(file)), vocabulary_(vocabulary), rows_(rows), written_(rows.size()) {}
  absl::Status BeginOrders(int n);

  std::unique_ptr<OutputFile> file_;
  const Vocabulary& vocabulary_;
  const std::vector<uint64_t> rows_;
  std::vector<uint64_t> written_;
  std::string line_;
  int n_ = 0;
};

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_ARPA_WRITER_H_
