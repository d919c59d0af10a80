// ballastctl log verify|dump, on the data directory of a server that is stopped. Nothing is changed and no server is asked.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/record/chunk.h"
#include "core/record/decision.h"
#include "core/record/log_record.h"
#include "server/storage/segment_reader.h"
#include "tools/ballastctl/commands.h"
#include "tools/ballastctl/output.h"

namespace ballast::ctl {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// The log folders (runs/RUN/shard-S) at or below `dir`, sorted.
absl::StatusOr<std::vector<std::string>> ShardDirs(const std::string& dir) {
  const auto is_shard = [](const fs::path& path) { return absl::StartsWith(path.filename().string(), "shard-"); };
  const fs::path root = fs::path(dir + "/").parent_path();
  std::vector<std::string> dirs;
  if (is_shard(root)) dirs.push_back(root);
  std::error_code error;
  for (fs::recursive_directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    if (it->is_directory(error) && is_shard(it->path())) dirs.push_back(it->path());
  }
  if (error) return absl::NotFoundError(absl::StrCat(dir, ": ", error.message()));
  if (dirs.empty()) return absl::NotFoundError(absl::StrCat("no log of a run below ", dir));
  std::sort(dirs.begin(), dirs.end());
  return dirs;
}

const char* KindName(DecisionKind kind) {
  switch (kind) {
    case DecisionKind::kStep:
      return "STEP";
    case DecisionKind::kInit:
      return "INIT";
    case DecisionKind::kCheckpoint:
      return "CHECKPOINT";
    case DecisionKind::kEvict:
      return "EVICT";
    case DecisionKind::kRollback:
      return "ROLLBACK";
    case DecisionKind::kSkip:
      return "SKIP";
  }
  return "?";
}

// Looks at the decisions of one log: in order, each chained to the one before.
class DecisionOrder {
 public:
  absl::Status Take(const Decision& d) {
    if (count_++ > 0) {
      if (d.index != last_.index + 1) return absl::DataLossError(absl::StrCat("decision ", d.index, " follows decision ", last_.index));
      if (absl::Status s = VerifyChain(last_.chain, d); !s.ok()) return s;
    }
    last_ = d;
    return absl::OkStatus();
  }
  uint64_t count() const { return count_; }
  const Decision& last() const { return last_; }

 private:
  uint64_t count_ = 0;
  Decision last_;
};

absl::Status AtPlace(const absl::Status& s, const std::string& dir, const LogPosition& at) {
  if (s.ok()) return s;
  return absl::Status(s.code(), absl::StrCat(SegmentPath(dir, at.segment), " at byte ", at.offset, ": ", s.message()));
}

absl::Status VerifyOne(const Globals& globals, const std::string& dir) {
  DecisionOrder order;
  uint64_t records = 0;
  const auto visit = [&](const RecordHeader& header, const LogPosition& at, absl::string_view body) -> absl::Status {
    ++records;
    if (header.kind == RecordKind::kContribution) return AtPlace(ParseChunkHead(body, body.size()).status(), dir, at);
    if (header.kind != RecordKind::kDecision) return absl::OkStatus();
    const absl::StatusOr<Decision> d = ParseDecision(body);
    return AtPlace(d.ok() ? order.Take(*d) : d.status(), dir, at);
  };
  const absl::StatusOr<LogEnd> end = ReadLog(dir, /*sync_first=*/false, visit);
  if (!end.ok()) return end.status();
  const std::string torn = end->torn_segment == 0 ? "" : absl::StrCat(SegmentPath(dir, end->torn_segment), " at byte ", end->torn_offset);
  if (globals.json) {
    const Json out = {{"dir", dir},
                      {"ok", true},
                      {"records", records},
                      {"bytes", end->bytes},
                      {"decisions", order.count()},
                      {"last_decision", order.last().index},
                      {"last_version", order.last().version},
                      {"unsynced_tail", torn.empty() ? Json(nullptr) : Json(torn)}};
    std::printf("%s\n", out.dump().c_str());
    return absl::OkStatus();
  }
  std::printf("ok: %s: %s records, %s, %s decisions up to %s (version %s), all checksums and chains match%s\n", dir.c_str(),
              HumanCount(records).c_str(), HumanBytes(end->bytes).c_str(), HumanCount(order.count()).c_str(),
              absl::StrCat(order.last().index).c_str(), absl::StrCat(order.last().version).c_str(),
              torn.empty() ? "" : absl::StrCat("; a write that was never synced ends it: ", torn).c_str());
  return absl::OkStatus();
}

// Every log is looked at, the first damage is the command's status.
absl::Status Verify(Globals& globals, const std::string& dir) {
  const absl::StatusOr<std::vector<std::string>> dirs = ShardDirs(dir);
  if (!dirs.ok()) return dirs.status();
  absl::Status first;
  for (const std::string& shard : *dirs) {
    const absl::Status s = VerifyOne(globals, shard);
    if (!s.ok() && !first.ok()) Message(std::string(s.message()));
    if (first.ok()) first = s;
  }
  return first;
}

Json DecisionJson(const Decision& d) {
  uint64_t rows = 0;
  Json parts = Json::array();
  for (const Part& part : d.parts) {
    rows += part.rows;
    parts.push_back({{"session", part.uid.session}, {"counter", part.uid.counter}, {"rows", part.rows}, {"batches", part.batches.size()}});
  }
  return {{"decision", KindName(d.kind)},
          {"index", d.index},
          {"version", d.version},
          {"step", d.step},
          {"generation", d.generation},
          {"rows", rows},
          {"parts", parts},
          {"skipped", d.skipped.size()},
          {"chain", absl::StrFormat("%016x", d.chain)}};
}

absl::StatusOr<Json> BodyJson(RecordKind kind, absl::string_view body) {
  switch (kind) {
    case RecordKind::kRun: {
      const absl::StatusOr<RunRecord> run = ParseRunRecord(body);
      if (!run.ok()) return run.status();
      return Json{{"kind", "RUN"}, {"shard", run->shard}, {"shards", run->shards}};
    }
    case RecordKind::kContribution: {
      const absl::StatusOr<ParsedHead> chunk = ParseChunkHead(body, body.size());
      if (!chunk.ok()) return chunk.status();
      const ChunkHead& head = chunk->head;
      return Json{{"kind", "CONTRIBUTION"}, {"run", head.run},   {"session", head.session},      {"counter", head.uid},
                  {"chunk", head.index},    {"last", head.last}, {"blocks", head.blocks.size()}, {"bytes", chunk->payload_bytes}};
    }
    case RecordKind::kDecision: {
      const absl::StatusOr<Decision> d = ParseDecision(body);
      if (!d.ok()) return d.status();
      Json out = {{"kind", "DECISION"}};
      out.update(DecisionJson(*d));
      return out;
    }
    case RecordKind::kHashRoot: {
      const absl::StatusOr<HashRoot> root = ParseHashRoot(body);
      if (!root.ok()) return root.status();
      return Json{{"kind", "HASH_ROOT"}, {"version", root->version}, {"hash", absl::StrFormat("%016x", root->root)}};
    }
    case RecordKind::kPad:
      break;
  }
  return Json{{"kind", "PAD"}};
}

// "key=value" of everything but nested values.
std::string Line(const Json& record) {
  std::string line;
  for (const auto& [key, value] : record.items()) {
    if (value.is_structured()) {
      absl::StrAppend(&line, line.empty() ? "" : "  ", key, "=", value.size());
    } else {
      absl::StrAppend(&line, line.empty() ? "" : "  ", key, "=", value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
  return line;
}

absl::Status Dump(Globals& globals, const std::string& dir) {
  const absl::StatusOr<std::vector<std::string>> dirs = ShardDirs(dir);
  if (!dirs.ok()) return dirs.status();
  for (const std::string& shard : *dirs) {
    const auto visit = [&](const RecordHeader& header, const LogPosition& at, absl::string_view body) -> absl::Status {
      const absl::StatusOr<Json> parsed = BodyJson(header.kind, body);
      if (!parsed.ok()) return AtPlace(parsed.status(), shard, at);
      Json record = {{"sequence", at.sequence}, {"segment", at.segment}, {"offset", at.offset}};
      record.update(*parsed);
      if (globals.json) record["dir"] = shard;
      std::printf("%s\n", globals.json ? record.dump().c_str() : Line(record).c_str());
      return absl::OkStatus();
    };
    if (!globals.json && dirs->size() > 1) std::printf("%s\n", shard.c_str());
    const absl::StatusOr<LogEnd> end = ReadLog(shard, /*sync_first=*/false, visit);
    if (!end.ok()) return end.status();
  }
  return absl::OkStatus();
}

}  // namespace

void AddLogCommands(CLI::App& app, Globals& globals) {
  CLI::App* log = app.add_subcommand("log", "Logs in the data directory of a stopped server");
  log->require_subcommand(1);
  auto dir = std::make_shared<std::string>();
  const auto add = [&](const char* command, const char* help, absl::Status (*body)(Globals&, const std::string&)) {
    CLI::App* sub = log->add_subcommand(command, help);
    sub->add_option("--dir,DIR", *dir, "Data directory, or one runs/RUN/shard-S in it")->required();
    Bind(sub, globals, [dir, body, &globals] { return body(globals, *dir); });
  };
  add("verify", "Check every record, chain and mark; exit code 1 names file and offset of the damage", Verify);
  add("dump", "Print a line for each record", Dump);
}

}  // namespace ballast::ctl
