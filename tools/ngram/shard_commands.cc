#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/ngram/adjust.h"
#include "tools/ngram/commands.h"
#include "tools/ngram/estimate.h"
#include "tools/ngram/shard_files.h"
#include "tools/ngram/smoothing_flags.h"

namespace ballast::ngram {
namespace {

absl::Status RunCount(const Flags& flags) {
  if (flags.arguments().empty()) return absl::InvalidArgumentError("no text; - is standard input");
  absl::StatusOr<CounterOptions> options = CounterFlags(flags);
  if (!options.ok()) return options.status();
  options->ids = flags.Text("ids");
  if (options->ids.empty() != flags.Has("vocab")) return absl::InvalidArgumentError("want either --vocab, where the words go, or --ids");
  if (flags.Has("limit-vocab") != flags.Has("allowed"))
    return absl::InvalidArgumentError("--limit-vocab, the words that n-grams may have, goes with --allowed, where their marks go");
  Counter counter(*options);
  for (const std::string& text : flags.arguments()) {
    if (absl::Status added = counter.AddText(text); !added.ok()) return added;
  }
  Header header;
  header.order = options->order;
  absl::StatusOr<std::unique_ptr<RowWriter>> writer = RowWriter::Create(flags.Text("out", "-"), header);
  if (!writer.ok()) return writer.status();
  const OnTuple write = [&](const WordId* row, uint64_t count) { return (*writer)->AddCount(RowKind::kTuple, header.order, row, count); };
  if (absl::Status counted = counter.Finish(write); !counted.ok()) return counted;
  if (flags.Has("vocab")) {
    if (absl::Status saved = counter.vocabulary().Save(flags.Text("vocab")); !saved.ok()) return saved;
  }
  if (flags.Has("limit-vocab")) {
    absl::StatusOr<AllowedWords> allowed = AllowedWords::FromList(flags.Text("limit-vocab"), counter.vocabulary());
    if (!allowed.ok()) return allowed.status();
    if (absl::Status saved = allowed->Save(flags.Text("allowed")); !saved.ok()) return saved;
  }
  return (*writer)->Finish();
}

absl::Status RunPlan(const Flags& flags) {
  if (flags.arguments().size() != 1) return absl::InvalidArgumentError("want one file of sorted tuples");
  const std::string& tuples = flags.arguments()[0];
  absl::StatusOr<PlanOptions> options = PlanFlags(flags);
  if (!options.ok()) return options.status();
  if (options->shards == 0) return absl::InvalidArgumentError("no --shards: how many shards level 1 has");
  absl::StatusOr<Plan> plan = PlanTuples(tuples, *options);
  if (!plan.ok()) return plan.status();
  std::fputs(plan->Describe().c_str(), stderr);
  absl::StatusOr<std::unique_ptr<OutputFile>> out = OutputFile::Create(flags.Text("out", "-"));
  if (!out.ok()) return out.status();
  if (absl::Status written = (*out)->Write(plan->Format()); !written.ok()) return written;
  if (flags.Has("split")) {
    absl::StatusOr<std::vector<ShardId>> shards = SplitTuples(tuples, *plan, flags.Text("split"), nullptr);
    if (!shards.ok()) return shards.status();
  }
  return (*out)->Commit();
}

std::string StandardStream(const Flags& flags) { return flags.Has("lines") ? kStandardLines : "-"; }

// For each shard of the one file that a command of the pipe reads, or of standard input: `work` with what was read and where the result
// goes. Shards follow each other in a pipe, as their results do.
absl::Status ForEachShard(const Flags& flags, const std::function<absl::Status(Shard shard, const std::string& out)>& work) {
  if (flags.arguments().size() > 1) return absl::InvalidArgumentError("want one file, or shards one after the other in standard input");
  std::shared_ptr<const AllowedWords> allowed;
  if (flags.Has("allowed")) {
    absl::StatusOr<AllowedWords> loaded = AllowedWords::Load(flags.Text("allowed"));
    if (!loaded.ok()) return loaded.status();
    allowed = std::make_shared<const AllowedWords>(*std::move(loaded));
  }
  const std::string standard = StandardStream(flags);
  absl::StatusOr<std::unique_ptr<RowReader>> reader = RowReader::Open(flags.arguments().empty() ? standard : flags.arguments()[0]);
  if (!reader.ok()) return reader.status();
  for (size_t shards = 1;; ++shards) {
    absl::StatusOr<Shard> shard = ReadShard(**reader);
    if (!shard.ok()) return shard.status();
    shard->allowed = allowed;
    if (absl::Status worked = work(*std::move(shard), flags.Text("out", standard)); !worked.ok()) return worked;
    absl::StatusOr<bool> more = (*reader)->NextStream();
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    if (flags.Has("out")) return absl::InvalidArgumentError("--out takes the result of one shard; there are more in the input");
  }
}

// Tuples in any order, in parts, to sorted ones, each once.
absl::Status RunCombine(const Flags& flags) {
  return ForEachShard(flags, [](const Shard& shard, const std::string& path) -> absl::Status {
    absl::StatusOr<std::unique_ptr<RowWriter>> out = RowWriter::Create(path, shard.header);
    if (!out.ok()) return out.status();
    for (size_t i = 0; i < shard.tuples.size(); ++i) {
      absl::Status added = (*out)->AddCount(RowKind::kTuple, shard.header.order, shard.tuples.row(i), shard.tuples.counts[i]);
      if (!added.ok()) return added;
    }
    return (*out)->Finish();
  });
}

absl::Status RunAdjust(const Flags& flags) {
  return ForEachShard(flags, [&](Shard shard, const std::string& path) -> absl::Status {
    if (flags.Has("prune")) {
      absl::StatusOr<Header> smoothing = SmoothingFlags(flags, shard.header.order);
      if (!smoothing.ok()) return smoothing.status();
      shard.header.thresholds = smoothing->thresholds;
    }
    absl::StatusOr<std::unique_ptr<RowWriter>> out = RowWriter::Create(path, shard.header);
    if (!out.ok()) return out.status();
    if (absl::Status adjusted = AdjustShard(std::move(shard), {flags.Has("collapse")}, **out); !adjusted.ok()) return adjusted;
    return (*out)->Finish();
  });
}

// One file for each level, as a shard that `estimate` takes: the 0-shards, in which each level's estimation begins.
absl::Status WriteZeroShards(const std::string& folder, Header header, Totals& totals) {
  for (CountRows& counts : totals.counts()) {
    if (counts.rows.size() == 0) continue;
    header.level = counts.rows.order - 1;
    absl::StatusOr<std::unique_ptr<RowWriter>> writer = RowWriter::Create(absl::StrCat(folder, "/zero.", counts.rows.order), header);
    if (!writer.ok()) return writer.status();
    for (size_t i = 0; i < counts.rows.size(); ++i) {
      uint32_t values[4];
      StoreCount(counts.adjusted[i], values);
      StoreCount(counts.rows.counts[i], values + 2);
      if (absl::Status added = (*writer)->Add(RowKind::kCount, counts.rows.order, counts.rows.row(i), values); !added.ok()) return added;
    }
    if (absl::Status finished = (*writer)->Finish(); !finished.ok()) return finished;
  }
  return absl::OkStatus();
}

absl::Status RunDiscounts(const Flags& flags) {
  if (flags.arguments().empty()) return absl::InvalidArgumentError("no files; want what `adjust` wrote of every shard");
  std::unique_ptr<Totals> totals;
  Header header;
  for (const std::string& path : flags.arguments()) {
    absl::StatusOr<std::unique_ptr<RowReader>> reader = RowReader::Open(path);
    if (!reader.ok()) return reader.status();
    if (totals == nullptr) {
      header.order = (*reader)->header().order;
      totals = std::make_unique<Totals>(header.order);
    }
    if (absl::Status added = totals->Add(**reader); !added.ok()) return added;
  }
  absl::StatusOr<bool> compat = CompatFlag(flags);
  if (!compat.ok()) return compat.status();
  totals->Finish(*compat);
  absl::StatusOr<std::optional<Discounts>> fallback = FallbackFlag(flags);
  if (!fallback.ok()) return fallback.status();
  absl::StatusOr<Header> smoothing = SmoothingFlags(flags, header.order);
  if (!smoothing.ok()) return smoothing.status();
  absl::StatusOr<std::vector<Discounts>> discounts = DiscountsOf(totals->census(), *fallback);
  if (!discounts.ok()) return discounts.status();
  header = *smoothing;
  header.discounts = *std::move(discounts);
  absl::StatusOr<std::unique_ptr<OutputFile>> out = OutputFile::Create(flags.Text("out", "-"));
  if (!out.ok()) return out.status();
  if (absl::Status written = (*out)->Write(FormatHeader(header)); !written.ok()) return written;
  if (flags.Has("zero")) {
    if (absl::Status written = WriteZeroShards(flags.Text("zero"), header, *totals); !written.ok()) return written;
  }
  return (*out)->Commit();
}

absl::Status TakeHead(const Flags& flags, Header& header) {
  absl::StatusOr<std::unique_ptr<RowReader>> head = RowReader::Open(flags.Text("head"));
  if (!head.ok()) return head.status();
  const int level = header.level;
  if ((*head)->header().order != header.order) return absl::InvalidArgumentError("--head is of a model of another order");
  header = (*head)->header();
  header.level = level;
  return absl::OkStatus();
}

absl::Status RunEstimate(const Flags& flags) {
  std::map<int, ValueRows<float>> zeros;  // [level]
  return ForEachShard(flags, [&](Shard shard, const std::string& path) -> absl::Status {
    const int level = shard.header.level;
    if (flags.Has("head")) {
      if (absl::Status taken = TakeHead(flags, shard.header); !taken.ok()) return taken;
    }
    if (flags.Has("zero") && zeros.count(level) == 0) {
      absl::StatusOr<ValueRows<float>> zero = ReadZero(flags.Text("zero"), level);
      if (!zero.ok()) return zero.status();
      zeros.emplace(level, *std::move(zero));
    }
    if (flags.Has("zero")) shard.zero = zeros[level];
    absl::StatusOr<std::unique_ptr<RowWriter>> out = RowWriter::Create(path, shard.header);
    if (!out.ok()) return out.status();
    if (absl::Status estimated = EstimateShard(std::move(shard), **out); !estimated.ok()) return estimated;
    return (*out)->Finish();
  });
}

std::vector<FlagSpec> Concatenated(std::vector<FlagSpec> flags, const std::vector<std::vector<FlagSpec>>& groups) {
  for (const std::vector<FlagSpec>& group : groups) flags.insert(flags.end(), group.begin(), group.end());
  return flags;
}

}  // namespace

std::vector<Command> ShardCommands() {
  const FlagSpec out{"out", "FILE", "where the result goes; standard output"};
  const FlagSpec allowed{"allowed", "FILE", "drop n-grams with a word that `count --limit-vocab` marked there as not in its list"};
  const FlagSpec lines{"lines", nullptr, "standard input and output are lines of base64"};
  return {
      {"count", "TEXT...", "text to sorted tuples and a vocabulary",
       Concatenated({out,
                     {"vocab", "FILE", "where the words go, in the order of their ids"},
                     {"ids", "FILE", "take the ids of this vocabulary, which has all words, instead of making one"},
                     {"limit-vocab", "FILE", "a list: n-grams with a word that is not in it are to be dropped"},
                     {"allowed", "FILE", "where the marks of the words of that list go, for adjust and estimate"}},
                    {CounterFlagSpecs()}),
       RunCount},
      {"combine", "[TUPLES]", "tuples in any order and in parts to sorted ones, each once", {out, lines}, RunCombine},
      {"plan", "TUPLES", "sorted tuples to a plan of levels and shards",
       Concatenated({out, {"split", "FOLDER", "also write each shard, as LEVEL.SHARD"}}, {PlanFlagSpecs()}), RunPlan},
      {"adjust",
       "[SHARD]",
       "tuples of a shard to its counts of counts and partial counts; of several shards, one after the other",
       {out,
        lines,
        allowed,
        {"collapse", nullptr, "also write the kept n-grams, and one wildcard row for the pruned ones of each context"},
        {"prune", "T1,T2,...", "thresholds for --collapse, if the shard's head has none"}},
       RunAdjust},
      {"discounts", "ADJUSTED...", "what `adjust` wrote of all shards to the head of the shards to estimate",
       Concatenated({out, {"zero", "FOLDER", "also write the counted n-grams of each level's 0-shard, as zero.LEVEL"}},
                    {SmoothingFlagSpecs(), DiscountFlagSpecs()}),
       RunDiscounts},
      {"estimate",
       "[SHARD]",
       "a shard to its probabilities and backoffs; several shards, one after the other",
       {out,
        lines,
        allowed,
        {"head", "FILE", "the head that `discounts` wrote, instead of the shard's own"},
        {"zero", "FILE", "probabilities of the 0-shards of the levels, instead of rows in the shard"}},
       RunEstimate},
  };
}

}  // namespace ballast::ngram
