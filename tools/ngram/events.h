// The events of a held-out text: each word and each </s>, with the words before it. What perplexity and mixing weights are made of.
// Pure but for reading.
#ifndef BALLAST_TOOLS_NGRAM_EVENTS_H_
#define BALLAST_TOOLS_NGRAM_EVENTS_H_

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tools/ngram/model.h"

namespace ballast::ngram {

// Calls `on_event` with the event and its history, the nearest word first, as many as the model uses; unknown words are <unk>.
// Errors: InvalidArgument for an empty text, and for a reserved word with its line.
[[nodiscard]] absl::Status ForEachEvent(const std::string& text, const Vocabulary& vocabulary, int order,
                                        const std::function<void(const WordId* words, int n)>& on_event);

struct Perplexity {
  uint64_t events = 0, unknown = 0, sentences = 0;
  double log_p = 0, log_p_unknown = 0;  // log10, summed; the second over unknown words.

  double including() const { return std::pow(10.0, -log_p / static_cast<double>(events)); }
  double excluding() const { return std::pow(10.0, -(log_p - log_p_unknown) / static_cast<double>(events - unknown)); }
};

absl::StatusOr<Perplexity> PerplexityOf(const Model& model, const std::string& text);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_EVENTS_H_
