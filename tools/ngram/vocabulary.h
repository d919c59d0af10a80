// Words and their ids. One thread at a time.
#ifndef BALLAST_TOOLS_NGRAM_VOCABULARY_H_
#define BALLAST_TOOLS_NGRAM_VOCABULARY_H_

#include <deque>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tools/ngram/words.h"

namespace ballast::ngram {

class Vocabulary {
 public:
  // Holds <unk>, <s> and </s>.
  Vocabulary();
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  // The id of `word`, a new one when it is seen for the first time.
  WordId Add(absl::string_view word);
  // kUnk for a word that is not there.
  WordId Find(absl::string_view word) const;
  const std::string& Word(WordId id) const { return words_[id]; }
  size_t size() const { return words_.size(); }

  // The same words with the same ids.
  Vocabulary Copy() const;

  // One word a line, in the order of the ids.
  [[nodiscard]] absl::Status Save(const std::string& path) const;
  // Errors: DataLoss when the first three are not the reserved ones or a word is there twice.
  static absl::StatusOr<Vocabulary> Load(const std::string& path);

 private:
  std::deque<std::string> words_;  // Never moves a string: the map's keys are views of them.
  absl::flat_hash_map<absl::string_view, WordId> ids_;
};

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_VOCABULARY_H_
