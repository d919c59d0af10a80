// ballastctl run ls|show|stop|rollback|rm
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/ballastctl/commands.h"
#include "tools/ballastctl/output.h"

namespace ballast::ctl {
namespace {

using Json = nlohmann::ordered_json;

uint32_t EpochsCommitted(const v1::Run& run) {
  uint32_t n = 0;
  for (const v1::EpochReport& e : run.epochs()) n += e.committed() ? 1 : 0;
  return n;
}

const char* StateName(const v1::Run& run) {
  if (run.state() == v1::RUN_ACTIVE && EpochsCommitted(run) >= run.spec().epochs()) return "complete";
  switch (run.state()) {
    case v1::RUN_WAITING:
      return "waiting";
    case v1::RUN_ACTIVE:
      return "active";
    case v1::RUN_STOPPED:
      return "stopped";
    default:
      return "unknown";
  }
}

Json NumberOrNull(double value) { return value == value ? Json(value) : Json(nullptr); }

Json RunJson(const v1::Run& run) {
  Json epochs = Json::array();
  for (const v1::EpochReport& e : run.epochs()) {
    epochs.push_back({{"epoch", e.epoch()},
                      {"committed", e.committed()},
                      {"batches", e.batches()},
                      {"rows_in", e.rows_in()},
                      {"rows_trained", e.rows_trained()},
                      {"rows_skipped", e.rows_skipped()},
                      {"duplicates", e.duplicates()},
                      {"manifest_version", e.manifest_version()}});
  }
  Json timing = Json::object();
  for (const v1::StepTiming& t : run.timing()) timing[t.phase()] = t.seconds();
  Json shards = Json::object();
  for (const v1::Block& b : run.layout()) {
    const std::string key = std::to_string(b.shard());
    shards[key] = shards.value(key, uint64_t{0}) + b.count();
  }
  return {{"run", run.spec().name()},
          {"state", StateName(run)},
          {"reason", run.reason()},
          {"generation", run.generation()},
          {"version", run.version()},
          {"steps", run.steps()},
          {"steps_part_full", run.steps_part_full()},
          {"rows_trained", run.rows_trained()},
          {"rows_skipped", run.rows_skipped()},
          {"duplicates", run.duplicates()},
          {"loss", NumberOrNull(run.loss())},
          {"residual_norm", run.residual_norm()},
          {"manifest_version", run.manifest_version()},
          {"sessions", run.sessions()},
          {"epochs_wanted", run.spec().epochs()},
          {"epochs", epochs},
          {"elements_by_shard", shards},
          {"timing_seconds", timing}};
}

Json BatchJson(const v1::Batch& b) {
  return {{"epoch", b.epoch()},
          {"partition", b.partition()},
          {"seq", b.seq()},
          {"rows", b.rows()},
          {"fingerprint", absl::StrFormat("%016x", b.fingerprint())}};
}

Json StepJson(const v1::Decision& d) {
  Json parts = Json::array();
  for (const v1::Part& p : d.parts()) {
    Json batches = Json::array();
    for (const v1::Batch& b : p.batches()) batches.push_back(BatchJson(b));
    parts.push_back({{"session", p.uid().session()},
                     {"uid", p.uid().counter()},
                     {"rows", p.rows()},
                     {"base_version", p.base_version()},
                     {"loss_sum", p.loss_sum()},
                     {"batches", batches}});
  }
  Json skipped = Json::array();
  for (const v1::SkippedBatch& s : d.skipped()) skipped.push_back({{"batch", BatchJson(s.batch())}, {"reason", s.reason()}});
  return {{"index", d.index()}, {"version", d.version()}, {"step", d.step()}, {"kind", v1::Decision::Kind_Name(d.kind())},
          {"parts", parts},     {"skipped", skipped}};
}

void PrintStep(const v1::Decision& d) {
  uint64_t rows = 0;
  double loss = 0;
  for (const v1::Part& p : d.parts()) rows += p.rows(), loss += p.loss_sum();
  std::printf("%-8lu %-8lu %-10s rows %-7lu parts %-3d skipped %-3d loss %s\n", static_cast<unsigned long>(d.index()),
              static_cast<unsigned long>(d.version()), v1::Decision::Kind_Name(d.kind()).c_str(), static_cast<unsigned long>(rows),
              d.parts_size(), d.skipped_size(), rows > 0 ? FormatDouble(loss / static_cast<double>(rows), 4).c_str() : "-");
  for (const v1::SkippedBatch& s : d.skipped()) {
    std::printf("         skipped: epoch %u, partition %u, batch %lu (%u rows): %s\n", s.batch().epoch(), s.batch().partition(),
                static_cast<unsigned long>(s.batch().seq()), s.batch().rows(), s.reason().c_str());
  }
}

absl::Status ListRuns(Globals& globals) {
  auto client = globals.Connect();
  if (!client.ok()) return client.status();
  auto list = client->ListRuns({});
  if (!list.ok()) return list.status();
  if (globals.json) {
    Json runs = Json::array();
    for (const v1::Run& run : list->runs()) runs.push_back(RunJson(run));
    std::printf("%s\n", runs.dump(2).c_str());
    return absl::OkStatus();
  }
  if (list->runs_size() == 0) {
    Message("no runs yet: ballast.spark.connect(...).train(...) makes one");
    return absl::OkStatus();
  }
  Table table({"RUN", "STATE", "EPOCHS", "VERSION", "ROWS TRAINED", "SKIPPED", "LOSS", "CHECKPOINT", "SESSIONS"});
  for (const v1::Run& run : list->runs()) {
    table.Add({run.spec().name(), StateName(run), absl::StrCat(EpochsCommitted(run), "/", run.spec().epochs()), HumanCount(run.version()),
               HumanCount(run.rows_trained()), HumanCount(run.rows_skipped()), FormatDouble(run.loss(), 4),
               run.manifest_version() ? std::to_string(run.manifest_version()) : "-", std::to_string(run.sessions())});
  }
  table.Print();
  return absl::OkStatus();
}

void PrintRun(const v1::Run& run) {
  uint64_t rows_in = 0, elements = 0;
  for (const v1::EpochReport& e : run.epochs()) rows_in += e.committed() ? e.rows_in() : 0;
  for (const v1::Block& b : run.layout()) elements += b.count();
  std::printf("run %s   %s%s%s\n", run.spec().name().c_str(), StateName(run), run.reason().empty() ? "" : ": ", run.reason().c_str());
  std::printf("  version %s, %s steps (%s part-full), generation %lu, newest checkpoint %s\n", HumanCount(run.version()).c_str(),
              HumanCount(run.steps()).c_str(), HumanCount(run.steps_part_full()).c_str(), static_cast<unsigned long>(run.generation()),
              run.manifest_version() ? std::to_string(run.manifest_version()).c_str() : "none");
  std::printf("  rows in (committed epochs) %s   rows trained %s   skipped %s   duplicates dropped %s batches\n",
              HumanCount(rows_in).c_str(), HumanCount(run.rows_trained()).c_str(), HumanCount(run.rows_skipped()).c_str(),
              HumanCount(run.duplicates()).c_str());
  std::printf("  loss (mean of 50 steps) %s   residual norm %s   sessions %u\n", FormatDouble(run.loss(), 4).c_str(),
              FormatDouble(run.residual_norm(), 4).c_str(), run.sessions());
  std::printf("  %d tensors, %s elements in %d blocks\n", run.spec().tensors_size(), HumanCount(elements).c_str(), run.layout_size());
  for (const v1::EpochReport& e : run.epochs()) {
    std::printf("  epoch %u/%u %s   rows trained %s   skipped %s   duplicates %s\n", e.epoch(), run.spec().epochs(),
                e.committed() ? "committed" : "open", HumanCount(e.rows_trained()).c_str(), HumanCount(e.rows_skipped()).c_str(),
                HumanCount(e.duplicates()).c_str());
  }
  double total = 0;
  for (const v1::StepTiming& t : run.timing()) total += t.seconds();
  if (total > 0) {
    std::printf("  time of the sessions:");
    for (const v1::StepTiming& t : run.timing()) std::printf(" %s %.0f%%", t.phase().c_str(), 100 * t.seconds() / total);
    std::printf("\n");
  }
}

absl::Status ShowRun(Globals& globals, const std::string& name, bool steps, uint64_t first, uint64_t last) {
  auto client = globals.Connect();
  if (!client.ok()) return client.status();
  auto run = client->GetRun(name);
  if (!run.ok()) return run.status();
  v1::DecisionRange range;
  range.set_run(name);
  range.set_first_index(first);
  range.set_last_index(last);
  if (globals.json) {
    Json out = RunJson(*run);
    if (steps) {
      out["decisions"] = Json::array();
      absl::Status listed = client->ListDecisions(range, [&](const v1::Decision& d) { out["decisions"].push_back(StepJson(d)); });
      if (!listed.ok()) return listed;
    }
    std::printf("%s\n", out.dump(2).c_str());
    return absl::OkStatus();
  }
  PrintRun(*run);
  if (!steps) return absl::OkStatus();
  std::printf("INDEX    VERSION  KIND\n");
  return client->ListDecisions(range, PrintStep);
}

absl::Status RollBack(Globals& globals, const std::string& text) {
  auto which = ParseRunVersion(text);
  if (!which.ok()) return which.status();
  if (which->version == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\": say which checkpoint, RUN@VERSION; `ballastctl ckpt ls ", which->run, "` lists them"));
  }
  auto client = globals.Connect();
  if (!client.ok()) return client.status();
  auto before = client->GetRun(which->run);
  if (!before.ok()) return before.status();
  auto run = client->Rollback(which->run, which->version);
  if (!run.ok()) return run.status();
  if (globals.json) {
    const Json out = {
        {"run", which->run},     {"rolled_back_to", which->version},   {"generation", run->generation()}, {"version", run->version()},
        {"steps", run->steps()}, {"rows_trained", run->rows_trained()}};
    std::printf("%s\n", out.dump().c_str());
  }
  Message(absl::StrCat("run ", which->run, " went back from version ", before->version(), " (", HumanCount(before->rows_trained()),
                       " rows trained) to version ", which->version, ": version ", run->version(), " has its values, ",
                       HumanCount(run->rows_trained()), " rows count as trained; train() with the same run_id trains the others again"));
  return absl::OkStatus();
}

}  // namespace

void AddRunCommands(CLI::App& app, Globals& globals) {
  CLI::App* run = app.add_subcommand("run", "Training runs");
  run->require_subcommand(1);
  Bind(run->add_subcommand("ls", "List runs"), globals, [&globals] { return ListRuns(globals); });

  auto name = std::make_shared<std::string>();
  auto steps = std::make_shared<bool>(false);
  auto first = std::make_shared<uint64_t>(0), last = std::make_shared<uint64_t>(0);
  CLI::App* show = run->add_subcommand("show", "One run: rows, loss, epochs, where the time went");
  show->add_option("RUN", *name, "Its name: the run_id of train()")->required();
  show->add_flag("--steps", *steps, "Also its decisions, as far as the log is retained: batches and parts of each step");
  show->add_option("--first", *first, "First decision index");
  show->add_option("--last", *last, "Last decision index");
  Bind(show, globals, [=, &globals] { return ShowRun(globals, *name, *steps, *first, *last); });

  auto reason = std::make_shared<std::string>("stopped by ballastctl");
  CLI::App* stop = run->add_subcommand("stop", "Stop training; train() with the same run_id resumes it");
  stop->add_option("RUN", *name, "Its name: the run_id of train()")->required();
  stop->add_option("--reason", *reason, "Shown to whoever looks at the run");
  Bind(stop, globals, [=, &globals]() -> absl::Status {
    auto client = globals.Connect();
    if (!client.ok()) return client.status();
    auto stopped = client->StopRun(*name, *reason);
    if (!stopped.ok()) return stopped.status();
    if (globals.json)
      std::printf("%s\n", Json{{"run", *name}, {"state", StateName(*stopped)}, {"version", stopped->version()}}.dump().c_str());
    Message(absl::StrCat("run ", *name, " is stopped at version ", stopped->version(), "; train() with the same run_id resumes it"));
    return absl::OkStatus();
  });

  CLI::App* rollback =
      run->add_subcommand("rollback", "Back to a checkpoint: what was trained after it is undone, rows count as not trained");
  rollback->add_option("RUN@VERSION", *name, "The checkpoint, as `ballastctl ckpt ls` lists it")->required();
  Bind(rollback, globals, [=, &globals] { return RollBack(globals, *name); });

  auto force = std::make_shared<bool>(false);
  CLI::App* rm = run->add_subcommand("rm", "Delete a run: its log and checkpoints on every server");
  rm->add_option("RUN", *name, "Its name: the run_id of train()")->required();
  rm->add_flag("-f,--force", *force, "Do it; without it only say what would go");
  Bind(rm, globals, [=, &globals]() -> absl::Status {
    auto client = globals.Connect();
    if (!client.ok()) return client.status();
    auto found = client->GetRun(*name);
    if (!found.ok()) return found.status();
    const auto print = [&] {
      if (globals.json) std::printf("%s\n", Json{{"run", *name}, {"deleted", *force}, {"version", found->version()}}.dump().c_str());
    };
    if (!*force) {
      print();
      Message(absl::StrCat("would delete run ", *name, " (version ", found->version(), ", ", HumanCount(found->rows_trained()),
                           " rows trained); repeat with --force"));
      return absl::OkStatus();
    }
    auto deleted = client->DeleteRun(*name);
    if (!deleted.ok()) return deleted.status();
    print();
    Message(absl::StrCat("run ", *name, " is deleted", deleted->reason().empty() ? "" : "; ", deleted->reason()));
    return absl::OkStatus();
  });
}

}  // namespace ballast::ctl
