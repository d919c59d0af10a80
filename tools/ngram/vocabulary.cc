#include "tools/ngram/vocabulary.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "tools/ngram/file.h"
#include "tools/ngram/lines.h"

namespace ballast::ngram {

Vocabulary::Vocabulary() {
  for (const char* word : {"<unk>", "<s>", "</s>"}) Add(word);
}

WordId Vocabulary::Add(absl::string_view word) {
  if (const auto found = ids_.find(word); found != ids_.end()) return found->second;
  const WordId id = static_cast<WordId>(words_.size());
  words_.emplace_back(word);
  ids_.emplace(words_.back(), id);
  return id;
}

WordId Vocabulary::Find(absl::string_view word) const {
  const auto found = ids_.find(word);
  return found == ids_.end() ? kUnk : found->second;
}

Vocabulary Vocabulary::Copy() const {
  Vocabulary copy;
  for (const std::string& word : words_) copy.Add(word);
  return copy;
}

absl::Status Vocabulary::Save(const std::string& path) const {
  absl::StatusOr<std::unique_ptr<OutputFile>> file = OutputFile::Create(path);
  if (!file.ok()) return file.status();
  for (const std::string& word : words_) {
    if (absl::Status written = (*file)->Write(absl::StrCat(word, "\n")); !written.ok()) return written;
  }
  return (*file)->Commit();
}

absl::StatusOr<Vocabulary> Vocabulary::Load(const std::string& path) {
  absl::StatusOr<std::unique_ptr<InputFile>> file = InputFile::Open(path);
  if (!file.ok()) return file.status();
  LineReader lines(**file);
  Vocabulary vocabulary;
  std::string line;
  for (size_t id = 0;; ++id) {
    absl::StatusOr<bool> more = lines.Next(line);
    if (!more.ok()) return more.status();
    if (!*more) break;
    if (vocabulary.Add(line) != id)
      return absl::DataLossError(
          absl::StrCat(path, " line ", id + 1, ": \"", line, "\" is there twice, or <unk>, <s> and </s> do not come first"));
  }
  return vocabulary;
}

}  // namespace ballast::ngram
