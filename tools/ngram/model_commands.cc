#include <cstdio>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/ngram/arpa_writer.h"
#include "tools/ngram/commands.h"
#include "tools/ngram/entropy_pruning.h"
#include "tools/ngram/events.h"
#include "tools/ngram/join.h"
#include "tools/ngram/mixture.h"
#include "tools/ngram/model.h"
#include "tools/ngram/raw_counts.h"

namespace ballast::ngram {
namespace {

absl::Status RunJoin(const Flags& flags) {
  if (!flags.Has("vocab") || !(flags.Has("out") || flags.Has("rows")))
    return absl::InvalidArgumentError("want --vocab (as `count` wrote it), and --out or --rows");
  absl::StatusOr<Vocabulary> vocabulary = Vocabulary::Load(flags.Text("vocab"));
  if (!vocabulary.ok()) return vocabulary.status();
  absl::StatusOr<RowFiles> shards = RowFiles::Open(flags.arguments());
  if (!shards.ok()) return shards.status();
  if (flags.Has("rows")) {
    if (absl::Status joined = JoinToRows(*shards, flags.Text("rows")); !joined.ok()) return joined;
  }
  return flags.Has("out") ? JoinToArpa(*shards, *vocabulary, flags.Text("out")) : absl::OkStatus();
}

absl::Status RunQuery(const Flags& flags) {
  if (flags.arguments().size() < 2) return absl::InvalidArgumentError("want an ARPA file and texts");
  absl::StatusOr<Model> model = Model::LoadArpa(flags.arguments()[0]);
  if (!model.ok()) return model.status();
  for (size_t i = 1; i < flags.arguments().size(); ++i) {
    absl::StatusOr<Perplexity> found = PerplexityOf(*model, flags.arguments()[i]);
    if (!found.ok()) return found.status();
    std::printf("%s\nevents %llu\nunknown words %llu\nperplexity including unknown words %.6f\nperplexity excluding unknown words %.6f\n",
                flags.arguments()[i].c_str(), static_cast<unsigned long long>(found->events),
                static_cast<unsigned long long>(found->unknown), found->including(), found->excluding());
  }
  return absl::OkStatus();
}

absl::Status RunArpa(const Flags& flags) {
  if (flags.arguments().size() != 1 || !flags.Has("vocab") || !flags.Has("out"))
    return absl::InvalidArgumentError("want one file, --vocab and --out");
  if (!flags.Has("from-rows")) {
    absl::StatusOr<Model> model = Model::LoadArpa(flags.arguments()[0]);
    if (!model.ok()) return model.status();
    if (absl::Status saved = model->vocabulary().Save(flags.Text("vocab")); !saved.ok()) return saved;
    return model->SaveRows(flags.Text("out"));
  }
  absl::StatusOr<Vocabulary> vocabulary = Vocabulary::Load(flags.Text("vocab"));
  if (!vocabulary.ok()) return vocabulary.status();
  absl::StatusOr<Model> model = Model::LoadRows(flags.arguments()[0], *std::move(vocabulary));
  if (!model.ok()) return model.status();
  return model->SaveArpa(flags.Text("out"));
}

absl::Status RunPrune(const Flags& flags) {
  if (flags.arguments().size() != 1 || !flags.Has("out")) return absl::InvalidArgumentError("want one ARPA file and --out");
  absl::StatusOr<double> theta = flags.Number("theta", 1e-8);
  if (!theta.ok()) return theta.status();
  if (!(*theta >= 0)) return absl::InvalidArgumentError("--theta must not be negative");
  const std::string history = flags.Text("history", "model");
  if (history != "model" && history != "raw") return absl::InvalidArgumentError(absl::StrCat("--history ", history, ": want model or raw"));
  if ((history == "raw") != flags.Has("tuples"))
    return absl::InvalidArgumentError("--history raw takes counts from --tuples FILE, model takes none");
  absl::StatusOr<Model> model = Model::LoadArpa(flags.arguments()[0]);
  if (!model.ok()) return model.status();
  std::vector<std::vector<double>> histories;
  if (history == "raw") {
    absl::StatusOr<std::vector<std::vector<double>>> raw = RawHistories(*model, flags.Text("tuples"));
    if (!raw.ok()) return raw.status();
    histories = *std::move(raw);
  } else {
    histories = ModelHistories(*model);
  }
  absl::StatusOr<Model> pruned = PruneByEntropy(*model, histories, *theta);
  if (!pruned.ok()) return pruned.status();
  return pruned->SaveArpa(flags.Text("out"));
}

absl::StatusOr<std::vector<double>> WeightsFor(const Flags& flags, const std::vector<Model>& models) {
  if (!flags.Has("weights")) {
    absl::StatusOr<double> eps = flags.Number("eps", 1e-6);
    if (!eps.ok()) return eps.status();
    absl::StatusOr<Weights> learnt = LearnWeights(models, flags.Text("dev"), *eps);
    if (!learnt.ok()) return learnt.status();
    std::printf("iterations %d\nperplexity %.6f\n", learnt->iterations, learnt->perplexity);
    for (const double weight : learnt->weights) std::printf("weight %.9f\n", weight);
    return learnt->weights;
  }
  absl::StatusOr<std::vector<double>> weights = flags.Numbers("weights");
  if (!weights.ok()) return weights.status();
  double sum = 0;
  for (const double weight : *weights) sum += weight >= 0 ? weight : 2;
  if (weights->size() != models.size() || std::fabs(sum - 1) > 1e-6)
    return absl::InvalidArgumentError("--weights wants one weight for each model, none negative, that sum to 1");
  return weights;
}

absl::Status RunMix(const Flags& flags) {
  if (flags.arguments().size() < 2) return absl::InvalidArgumentError("want two ARPA files or more");
  if (flags.Has("dev") == flags.Has("weights"))
    return absl::InvalidArgumentError("want either --dev TEXT to learn the weights or --weights");
  std::vector<Model> models;
  for (const std::string& path : flags.arguments()) {
    absl::StatusOr<Model> model = Model::LoadArpa(path);
    if (!model.ok()) return model.status();
    models.push_back(*std::move(model));
  }
  absl::StatusOr<std::vector<double>> weights = WeightsFor(flags, models);
  if (!weights.ok()) return weights.status();
  if (!flags.Has("out")) return absl::OkStatus();
  absl::StatusOr<Model> mixed = MixModels(models, *weights);
  if (!mixed.ok()) return mixed.status();
  return mixed->SaveArpa(flags.Text("out"));
}

}  // namespace

std::vector<Command> ModelCommands() {
  return {
      {"join",
       "ESTIMATED...",
       "what `estimate` wrote of all shards and 0-shards to an ARPA file",
       {{"vocab", "FILE", "the words, as `count` wrote them"},
        {"out", "FILE", "the ARPA file"},
        {"rows", "FILE", "the model as rows, instead of the ARPA file or beside it"}},
       RunJoin},
      {"arpa",
       "FILE",
       "an ARPA file to rows and a vocabulary, or back",
       {{"vocab", "FILE", "the words: written, or read with --from-rows"},
        {"out", "FILE", "the rows, or the ARPA file"},
        {"from-rows", nullptr, "rows to ARPA instead of ARPA to rows"}},
       RunArpa},
      {"query", "ARPA TEXT...", "perplexity of texts", {}, RunQuery},
      {"prune",
       "ARPA",
       "entropy pruning",
       {{"out", "FILE", "the pruned ARPA file"},
        {"theta", "RATIO", "drop an n-gram when the perplexity grows by less than this share; 1e-8"},
        {"history", "model|raw", "probabilities of histories by the model or by raw counts, which suits Kneser-Ney better; model"},
        {"tuples", "FILE", "sorted tuples of the model's text, with the model's ids: for --history raw"}},
       RunPrune},
      {"mix",
       "ARPA ARPA...",
       "linear interpolation of models that share a vocabulary size",
       {{"out", "FILE", "the mixed ARPA file; without it only the weights are learnt"},
        {"dev", "TEXT", "held-out text to learn the weights from"},
        {"eps", "CHANGE", "stop when no weight moves by more; 1e-6"},
        {"weights", "L1,L2,...", "the weights, instead of learning them"}},
       RunMix},
  };
}

}  // namespace ballast::ngram
