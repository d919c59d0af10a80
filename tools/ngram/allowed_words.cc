#include "tools/ngram/allowed_words.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "tools/ngram/file.h"
#include "tools/ngram/lines.h"
#include "tools/ngram/sentences.h"

namespace ballast::ngram {

absl::StatusOr<AllowedWords> AllowedWords::FromList(const std::string& path, const Vocabulary& vocabulary) {
  absl::StatusOr<std::unique_ptr<InputFile>> file = InputFile::Open(path);
  if (!file.ok()) return file.status();
  std::string marks(vocabulary.size(), '0');
  bool any = false;
  LineReader lines(**file);
  std::string line;
  while (true) {
    absl::StatusOr<bool> more = lines.Next(line);
    if (!more.ok()) return more.status();
    if (!*more) break;
    ForEachWord(line, [&](absl::string_view word) {
      const WordId id = vocabulary.Find(word);
      marks[id] = '1';
      any |= id >= kReserved;
    });
  }
  if (!any) return absl::InvalidArgumentError(absl::StrCat(path, " holds no word of the text, so no n-gram would be left"));
  for (WordId id = 0; id < kReserved; ++id) marks[id] = '1';
  return AllowedWords(std::move(marks));
}

absl::StatusOr<AllowedWords> AllowedWords::Load(const std::string& path) {
  absl::StatusOr<std::unique_ptr<InputFile>> file = InputFile::Open(path);
  if (!file.ok()) return file.status();
  LineReader lines(**file);
  std::string marks, rest;
  absl::StatusOr<bool> more = lines.Next(marks);
  if (more.ok() && *more) more = lines.Next(rest);
  if (!more.ok()) return more.status();
  if (*more || marks.size() < kReserved || marks.find_first_not_of("01") != std::string::npos)
    return absl::DataLossError(absl::StrCat(path, " is no list of allowed words: want one line, a 0 or 1 for each word of the vocabulary"));
  return AllowedWords(std::move(marks));
}

absl::Status AllowedWords::Save(const std::string& path) const {
  absl::StatusOr<std::unique_ptr<OutputFile>> file = OutputFile::Create(path);
  if (!file.ok()) return file.status();
  if (absl::Status written = (*file)->Write(absl::StrCat(marks_, "\n")); !written.ok()) return written;
  return (*file)->Commit();
}

}  // namespace ballast::ngram
