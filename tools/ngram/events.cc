#include "tools/ngram/events.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "tools/ngram/lines.h"
#include "tools/ngram/sentences.h"

namespace ballast::ngram {

absl::Status ForEachEvent(const std::string& text, const Vocabulary& vocabulary, int order,
                          const std::function<void(const WordId* words, int n)>& on_event) {
  absl::StatusOr<std::unique_ptr<InputFile>> file = InputFile::Open(text);
  if (!file.ok()) return file.status();
  LineReader lines(**file);
  std::string line;
  std::vector<WordId> sentence, window;
  for (uint64_t number = 0;; ++number) {
    absl::StatusOr<bool> more = lines.Next(line);
    if (!more.ok()) return more.status();
    if (!*more) return number > 0 ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrCat("the text ", text, " is empty"));
    sentence.assign(1, kBos);
    bool reserved = false;
    ForEachWord(line, [&](absl::string_view word) {
      reserved |= IsReserved(word);
      sentence.push_back(vocabulary.Find(word));
    });
    if (reserved)
      return absl::InvalidArgumentError(
          absl::StrCat(text, " line ", number + 1, " holds <s>, </s> or <unk>, which have meanings of their own"));
    sentence.push_back(kEos);
    for (size_t end = 2; end <= sentence.size(); ++end) {
      const size_t n = std::min(end, static_cast<size_t>(order));
      window.assign(sentence.rend() - static_cast<std::ptrdiff_t>(end), sentence.rend() - static_cast<std::ptrdiff_t>(end - n));
      on_event(window.data(), static_cast<int>(n));
    }
  }
}

absl::StatusOr<Perplexity> PerplexityOf(const Model& model, const std::string& text) {
  Perplexity result;
  absl::Status read = ForEachEvent(text, model.vocabulary(), model.order(), [&](const WordId* words, int n) {
    const double log_p = model.Score(words, n);
    ++result.events;
    result.log_p += log_p;
    result.sentences += words[0] == kEos;
    if (words[0] == kUnk) {
      ++result.unknown;
      result.log_p_unknown += log_p;
    }
  });
  if (!read.ok()) return read;
  if (result.unknown + result.sentences == result.events && result.unknown > 0)
    return absl::InvalidArgumentError(absl::StrCat("the text ", text, " has not one word that the model knows"));
  return result;
}

}  // namespace ballast::ngram
