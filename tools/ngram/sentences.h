// Text to sentences of word ids: one sentence a line, words between runs of NUL, TAB, CR and SPACE. Pure functions over a vocabulary.
#ifndef BALLAST_TOOLS_NGRAM_SENTENCES_H_
#define BALLAST_TOOLS_NGRAM_SENTENCES_H_

#include <vector>

#include "absl/strings/string_view.h"
#include "tools/ngram/words.h"

namespace ballast::ngram {

// Calls `word(view)` for each word of a line. No Unicode spaces, no lower-casing.
template <typename OnWord>
void ForEachWord(absl::string_view line, OnWord word) {
  const auto separates = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\0'; };
  size_t i = 0;
  while (true) {
    while (i < line.size() && separates(line[i])) ++i;
    if (i == line.size()) return;
    const size_t begin = i;
    while (i < line.size() && !separates(line[i])) ++i;
    word(line.substr(begin, i - begin));
  }
}

// <unk>, <s> and </s> have meanings of their own and must not be words of a text.
inline bool IsReserved(absl::string_view word) { return word == "<s>" || word == "</s>" || word == "<unk>"; }

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_SENTENCES_H_
