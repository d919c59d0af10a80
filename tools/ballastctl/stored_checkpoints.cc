#include "tools/ballastctl/stored_checkpoints.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/ballastctl/output.h"
#include "tools/ballastctl/stopped_server.h"

namespace ballast::ctl {
namespace {

using Json = nlohmann::ordered_json;
using Servers = std::vector<std::unique_ptr<StoppedServer>>;

absl::StatusOr<Servers> OpenAll(const std::vector<std::string>& dirs) {
  Servers servers;
  for (const std::string& dir : dirs) {
    auto server = StoppedServer::Open(dir, StoppedServer::Access::kRead);
    if (!server.ok()) return server.status();
    servers.push_back(*std::move(server));
  }
  return servers;
}

// ---- verify ----

// What server 0's manifests say of the other servers' parts.
absl::Status CheckDigests(const StoppedServer& zero, const Servers& servers, const std::string& run, uint64_t version) {
  const auto& manifests = zero.runs().at(run).manifests;
  for (const Manifest& manifest : manifests) {
    for (const ShardDigest& shard : manifest.shards) {
      for (const auto& server : servers) {
        if (manifest.version != version || server->index() != shard.shard || !server->runs().contains(run)) continue;
        const auto& checkpoints = server->runs().at(run).checkpoints;
        const auto found = checkpoints.find(version);
        if (found != checkpoints.end() && found->second.digest.digest == shard.digest) continue;
        return absl::DataLossError(absl::StrCat(server->dir(), ": its part of ", run, "@", version, " is not what the manifest in ",
                                                zero.dir(),
                                                found == checkpoints.end() ? " names: it is missing" : " names: another digest"));
      }
    }
  }
  return absl::OkStatus();
}

// The versions to look at: those with a manifest on server 0, else all that are there.
std::set<uint64_t> Versions(const StoppedServer::Run& run, uint64_t wanted) {
  std::set<uint64_t> versions;
  for (const Manifest& m : run.manifests) versions.insert(m.version);
  for (const auto& [version, meta] : run.checkpoints) versions.insert(version);
  if (wanted != 0) return versions.contains(wanted) ? std::set<uint64_t>{wanted} : std::set<uint64_t>{};
  return versions;
}

void Say(const Globals& globals, const StoppedServer& server, const std::string& run, uint64_t version,
         const std::vector<absl::Status>& wrong) {
  if (globals.json) {
    Json damages = Json::array();
    for (const absl::Status& s : wrong) damages.push_back(std::string(s.message()));
    std::printf(
        "%s\n",
        Json{{"dir", server.dir()}, {"run", run}, {"version", version}, {"ok", wrong.empty()}, {"damages", damages}}.dump().c_str());
    return;
  }
  if (wrong.empty()) {
    std::printf("ok: %s: %s@%lu: every block matches its checksum and the digest\n", server.dir().c_str(), run.c_str(),
                static_cast<unsigned long>(version));
  }
  for (const absl::Status& s : wrong) Message(std::string(s.message()));
}

class Verification {
 public:
  Verification(const Globals& globals, const Servers& servers) : globals_(globals), servers_(servers) {}

  void Look(const StoppedServer& server, const std::string& name, const StoppedServer::Run& run, uint64_t wanted) {
    for (const absl::Status& damage : run.damages) {
      Message(std::string(damage.message()));
      Count(damage);
    }
    for (uint64_t version : Versions(run, wanted)) {
      std::vector<absl::Status> wrong = server.Check(run, version);
      if (absl::Status digests = CheckDigests(server, servers_, name, version); !digests.ok()) wrong.push_back(digests);
      Say(globals_, server, name, version, wrong);
      for (const absl::Status& s : wrong) Count(s);
      ++checked_;
    }
  }
  void LookAtRecords(const StoppedServer& server) {
    const absl::Status read = server.CheckRecords();
    if (read.ok()) return;
    Message(std::string(read.message()));
    Count(read);
  }
  size_t checked() const { return checked_; }
  absl::Status Result() const {
    if (damages_ < 2) return first_;
    return absl::Status(first_.code(), absl::StrCat(damages_, " damages, the first: ", first_.message()));
  }

 private:
  void Count(const absl::Status& s) {
    if (damages_++ == 0) first_ = s;
  }

  const Globals& globals_;
  const Servers& servers_;
  size_t checked_ = 0, damages_ = 0;
  absl::Status first_;
};

// ---- diff ----

using Values = std::map<std::pair<uint32_t, uint64_t>, std::string>;  // (tensor, first element) -> bytes

struct Found {
  const RunSpec* spec = nullptr;
  Values values;
};

absl::StatusOr<Found> Read(const Servers& servers, const std::string& which) {
  const auto wanted = ParseRunVersion(which);
  if (!wanted.ok()) return wanted.status();
  Found found;
  for (const auto& server : servers) {
    const auto run = server->runs().find(wanted->run);
    if (run == server->runs().end()) return absl::NotFoundError(absl::StrCat(server->dir(), " has no run ", wanted->run));
    const auto& checkpoints = run->second.checkpoints;
    if (checkpoints.empty()) return absl::NotFoundError(absl::StrCat(server->dir(), " has no checkpoint of run ", wanted->run));
    const uint64_t version = wanted->version == 0 ? checkpoints.rbegin()->first : wanted->version;
    found.spec = &run->second.definition.spec;
    const absl::Status read = server->ReadValues(run->second, version, [&](const Block& block, absl::string_view bytes) {
      found.values[{block.tensor, block.first}] = std::string(bytes);
      return absl::OkStatus();
    });
    if (!read.ok()) return read;
  }
  return found;
}

struct Distance {
  uint64_t elements = 0, differ = 0;
  double most = 0, norm2 = 0;

  void Add(double before, double after, bool same) {
    ++elements;
    if (same) return;
    ++differ;
    const double d = std::abs(after - before);
    most = std::isnan(d) || d > most ? d : most;
    norm2 += d * d;
  }
};

template <typename T>
void AddAll(absl::string_view before, absl::string_view after, Distance& distance) {
  for (size_t i = 0; i + sizeof(T) <= before.size(); i += sizeof(T)) {
    T b, a;
    std::memcpy(&b, before.data() + i, sizeof(T));
    std::memcpy(&a, after.data() + i, sizeof(T));
    distance.Add(static_cast<double>(b), static_cast<double>(a), std::memcmp(before.data() + i, after.data() + i, sizeof(T)) == 0);
  }
}

absl::StatusOr<std::vector<Distance>> Compare(const Found& before, const Found& after) {
  const auto same_shape = [](const TensorSpec& a, const TensorSpec& b) {
    return a.name == b.name && a.shape == b.shape && a.dtype == b.dtype;
  };
  const auto& tensors = before.spec->tensors;
  if (!std::equal(tensors.begin(), tensors.end(), after.spec->tensors.begin(), after.spec->tensors.end(), same_shape)) {
    return absl::FailedPreconditionError(absl::StrCat("runs ", before.spec->name, " and ", after.spec->name, " have other tensors"));
  }
  std::vector<Distance> distances(tensors.size());
  for (const auto& [place, bytes] : before.values) {
    const auto other = after.values.find(place);
    if (other == after.values.end() || other->second.size() != bytes.size()) {
      return absl::FailedPreconditionError("the two checkpoints are cut into other blocks: compare exports of them");
    }
    if (tensors[place.first].dtype == DType::kI64) {
      AddAll<int64_t>(bytes, other->second, distances[place.first]);
    } else {
      AddAll<float>(bytes, other->second, distances[place.first]);
    }
  }
  return distances;
}

void PrintDistances(const Globals& globals, const RunSpec& spec, const std::vector<Distance>& distances) {
  Json out = Json::array();
  Table table({"TENSOR", "ELEMENTS", "DIFFER", "LARGEST", "NORM"});
  for (size_t i = 0; i < distances.size(); ++i) {
    const Distance& d = distances[i];
    const double norm = std::sqrt(d.norm2);
    out.push_back({{"tensor", spec.tensors[i].name}, {"elements", d.elements}, {"differ", d.differ}, {"largest", d.most}, {"norm", norm}});
    table.Add({spec.tensors[i].name, HumanCount(d.elements), HumanCount(d.differ), FormatDouble(d.most, 6), FormatDouble(norm, 6)});
  }
  if (globals.json) {
    std::printf("%s\n", out.dump(2).c_str());
  } else {
    table.Print();
  }
}

}  // namespace

absl::Status VerifyStored(Globals& globals, const std::vector<std::string>& dirs, const std::string& which) {
  absl::StatusOr<RunVersion> wanted = RunVersion{};
  if (!which.empty()) wanted = ParseRunVersion(which);
  if (!wanted.ok()) return wanted.status();
  const absl::StatusOr<Servers> servers = OpenAll(dirs);
  if (!servers.ok()) return servers.status();
  Verification verification(globals, *servers);
  for (const auto& server : *servers) {
    if (which.empty()) verification.LookAtRecords(*server);
    for (const auto& [name, run] : server->runs()) {
      if (wanted->run.empty() || wanted->run == name) verification.Look(*server, name, run, wanted->version);
    }
  }
  if (verification.checked() == 0 && verification.Result().ok()) {
    return absl::NotFoundError(absl::StrCat("no checkpoint", which.empty() ? "" : " " + which, " in ", dirs.front()));
  }
  return verification.Result();
}

absl::Status DiffStored(Globals& globals, const std::vector<std::string>& dirs, const std::string& before, const std::string& after) {
  const absl::StatusOr<Servers> servers = OpenAll(dirs);
  if (!servers.ok()) return servers.status();
  const absl::StatusOr<Found> first = Read(*servers, before), second = Read(*servers, after);
  if (!first.ok()) return first.status();
  if (!second.ok()) return second.status();
  const absl::StatusOr<std::vector<Distance>> distances = Compare(*first, *second);
  if (!distances.ok()) return distances.status();
  PrintDistances(globals, *first->spec, *distances);
  return absl::OkStatus();
}

absl::Status RemoveStored(Globals& globals, const std::string& dir, const std::string& which) {
  const auto wanted = ParseRunVersion(which);
  if (!wanted.ok()) return wanted.status();
  if (wanted->version == 0) return absl::InvalidArgumentError(absl::StrCat("\"", which, "\": say which checkpoint, RUN@VERSION"));
  auto server = StoppedServer::Open(dir, StoppedServer::Access::kWrite);
  if (!server.ok()) return server.status();
  const auto run = (*server)->runs().find(wanted->run);
  if (run == (*server)->runs().end()) return absl::NotFoundError(absl::StrCat(dir, " has no run ", wanted->run));
  if (absl::Status removed = (*server)->Remove(run->second, wanted->version); !removed.ok()) return removed;
  if (globals.json) {
    std::printf("%s\n", Json{{"dir", dir}, {"run", wanted->run}, {"removed", wanted->version}}.dump().c_str());
  } else {
    Message(absl::StrCat("removed ", which, "; other servers drop their part with the next checkpoint"));
  }
  return absl::OkStatus();
}

}  // namespace ballast::ctl
