// Which words of a vocabulary n-grams may have: one with any other word is pruned, as a rare one is (docs/NGRAM.md, "Cutoffs"). Pure but
// for the files; read by any thread once it is made.
#ifndef BALLAST_TOOLS_NGRAM_ALLOWED_WORDS_H_
#define BALLAST_TOOLS_NGRAM_ALLOWED_WORDS_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/ngram/vocabulary.h"

namespace ballast::ngram {

class AllowedWords {
 public:
  // <unk>, <s>, </s> and the words of a text file; those that `vocabulary` lacks do not matter. Errors: InvalidArgument when it lacks all.
  static absl::StatusOr<AllowedWords> FromList(const std::string& path, const Vocabulary& vocabulary);

  // A file of one line: 0 or 1 for each word, in the order of the ids. Errors: DataLoss for anything else in it.
  static absl::StatusOr<AllowedWords> Load(const std::string& path);
  [[nodiscard]] absl::Status Save(const std::string& path) const;

  bool HasAll(const WordId* words, int n) const {
    for (int i = 0; i < n; ++i) {
      if (words[i] >= marks_.size() || marks_[words[i]] == '0') return false;
    }
    return true;
  }

 private:
  explicit AllowedWords(std::string marks) : marks_(std::move(marks)) {}

  std::string marks_;  // [id]: '0' or '1'
};

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_ALLOWED_WORDS_H_
