// Linear mixtures of models, docs/NGRAM.md "Mixing": weights by expectation maximization on held-out text, and the static mix. Pure but for
// reading the text.
#ifndef BALLAST_TOOLS_NGRAM_MIXTURE_H_
#define BALLAST_TOOLS_NGRAM_MIXTURE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/ngram/model.h"

namespace ballast::ngram {

struct Weights {
  std::vector<double> weights;  // [model], they sum to 1.
  int iterations = 0;
  double perplexity = 0;  // Of the mixture on the text, with these weights.
};

// A word that a model does not know is its <unk>. Events that all models score zero are passed over. Stops when no weight moves by more
// than `eps`. Errors: InvalidArgument for an empty text or one without a word that some model knows.
absl::StatusOr<Weights> LearnWeights(const std::vector<Model>& models, const std::string& text, double eps);

// The union of the models' n-grams with p = sum of weight times p (backed off where a model does not list it), and backoffs that make every
// context sum to 1.
absl::StatusOr<Model> MixModels(const std::vector<Model>& models, const std::vector<double>& weights);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_MIXTURE_H_
