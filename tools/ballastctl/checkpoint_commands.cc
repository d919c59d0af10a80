// ballastctl ckpt ls|show|verify|save|export|diff|rm
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tools/ballastctl/commands.h"
#include "tools/ballastctl/output.h"
#include "tools/ballastctl/safetensors_writer.h"
#include "tools/ballastctl/stored_checkpoints.h"

namespace ballast::ctl {
namespace {

using Json = nlohmann::ordered_json;

struct Checkpoint {
  v1::Run run;
  v1::Manifest manifest;
};

uint64_t BytesOf(const v1::Manifest& manifest) {
  uint64_t bytes = 0;
  for (const v1::ShardDigest& s : manifest.shards()) bytes += s.bytes();
  return bytes;
}

uint64_t Elements(const v1::TensorSpec& tensor) {
  uint64_t n = 1;
  for (int64_t d : tensor.shape()) n *= static_cast<uint64_t>(d);
  return n;
}

std::string ShapeText(const v1::TensorSpec& tensor) { return tensor.shape_size() == 0 ? "scalar" : absl::StrJoin(tensor.shape(), "x"); }

absl::StatusOr<Checkpoint> Find(Client& client, const std::string& text) {
  auto wanted = ParseRunVersion(text);
  if (!wanted.ok()) return wanted.status();
  auto run = client.GetRun(wanted->run);
  if (!run.ok()) return run.status();
  auto manifests = client.ListManifests(wanted->run);
  if (!manifests.ok()) return manifests.status();
  std::vector<uint64_t> versions;
  for (const v1::Manifest& m : manifests->manifests()) {
    if (wanted->version == 0 || m.version() == wanted->version) return Checkpoint{*run, m};
    versions.push_back(m.version());
  }
  if (versions.empty())
    return absl::NotFoundError(
        absl::StrCat("run ", wanted->run, " has no checkpoint yet; `ballastctl ckpt save ", wanted->run, "` makes one"));
  return absl::NotFoundError(
      absl::StrCat("run ", wanted->run, " has no checkpoint ", wanted->version, "; it has ", absl::StrJoin(versions, ", ")));
}

absl::Status List(Globals& globals, const std::string& name) {
  auto client = globals.Connect();
  if (!client.ok()) return client.status();
  auto run = client->GetRun(name);
  if (!run.ok()) return run.status();
  auto manifests = client->ListManifests(name);
  if (!manifests.ok()) return manifests.status();
  Json out = Json::array();
  Table table({"VERSION", "RUN", "STEP", "LOSS", "SIZE", "SAVED", "HEALTHY"});
  for (const v1::Manifest& m : manifests->manifests()) {
    out.push_back({{"version", m.version()},
                   {"run", m.run()},
                   {"step", m.step()},
                   {"loss", m.loss() == m.loss() ? Json(m.loss()) : Json(nullptr)},
                   {"bytes", BytesOf(m)},
                   {"created_unix_ms", m.created_unix_ms()},
                   {"healthy", m.healthy()}});
    table.Add({std::to_string(m.version()), m.run(), HumanCount(m.step()), FormatDouble(m.loss(), 4), HumanBytes(BytesOf(m)),
               HumanAge(m.created_unix_ms()), m.healthy() ? "yes" : "no"});
  }
  if (globals.json) {
    std::printf("%s\n", out.dump(2).c_str());
  } else if (manifests->manifests_size() == 0) {
    Message(absl::StrCat("no checkpoint yet; `ballastctl ckpt save ", name, "` makes one"));
  } else {
    table.Print();
  }
  return absl::OkStatus();
}

struct TensorStats {
  double norm2 = 0;
  uint64_t nonfinite = 0;
  std::set<uint32_t> shards;
};

void AddBlock(const v1::BlockHead& head, absl::string_view bytes, TensorStats& stats) {
  if (head.codec() == v1::CODEC_I64) {
    for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
      int64_t v;
      std::memcpy(&v, bytes.data() + i, sizeof v);
      stats.norm2 += static_cast<double>(v) * static_cast<double>(v);
    }
    return;
  }
  for (size_t i = 0; i + 4 <= bytes.size(); i += 4) {
    float v;
    std::memcpy(&v, bytes.data() + i, sizeof v);
    if (std::isfinite(v)) {
      stats.norm2 += static_cast<double>(v) * static_cast<double>(v);
    } else {
      ++stats.nonfinite;
    }
  }
}

absl::Status Show(Globals& globals, const std::string& text) {
  auto client = globals.Connect();
  if (!client.ok()) return client.status();
  auto found = Find(*client, text);
  if (!found.ok()) return found.status();
  std::vector<TensorStats> stats(static_cast<size_t>(found->run.spec().tensors_size()));
  absl::Status read = client->ReadManifest(
      found->run, found->manifest.version(), false, [&](uint32_t server, const v1::BlockHead& head, absl::string_view bytes) {
        if (head.tensor() >= stats.size())
          return absl::DataLossError(
              absl::StrCat("server ", server, " sent a block of tensor ", head.tensor(), ", which the run does not have"));
        stats[head.tensor()].shards.insert(server);
        AddBlock(head, bytes, stats[head.tensor()]);
        return absl::OkStatus();
      });
  if (!read.ok()) return read;
  Json out = Json::array();
  Table table({"TENSOR", "DTYPE", "SHAPE", "SHARDS", "NORM", "NON-FINITE"});
  for (size_t i = 0; i < stats.size(); ++i) {
    const v1::TensorSpec& t = found->run.spec().tensors(static_cast<int>(i));
    const double norm = std::sqrt(stats[i].norm2);
    out.push_back({{"tensor", t.name()},
                   {"dtype", t.source_dtype()},
                   {"shape", std::vector<int64_t>(t.shape().begin(), t.shape().end())},
                   {"shards", stats[i].shards},
                   {"norm", norm},
                   {"nonfinite", stats[i].nonfinite}});
    table.Add({t.name(), t.source_dtype(), ShapeText(t), absl::StrJoin(stats[i].shards, ","), FormatDouble(norm, 4),
               std::to_string(stats[i].nonfinite)});
  }
  if (globals.json) {
    std::printf("%s\n", Json{{"run", found->manifest.run()},
                             {"version", found->manifest.version()},
                             {"healthy", found->manifest.healthy()},
                             {"tensors", out}}
                            .dump(2)
                            .c_str());
  } else {
    table.Print();
  }
  return absl::OkStatus();
}

// Every block of the layout must come, once, from its server, with a checksum that fits; slots too.
absl::Status Verify(Globals& globals, const std::string& text) {
  auto client = globals.Connect();
  if (!client.ok()) return client.status();
  auto found = Find(*client, text);
  if (!found.ok()) return found.status();
  const uint32_t tensors = static_cast<uint32_t>(found->run.spec().tensors_size());
  std::set<std::pair<uint32_t, uint64_t>> missing;
  for (const v1::Block& b : found->run.layout()) missing.insert({b.tensor(), b.first()});
  uint64_t bytes_read = 0, blocks = 0;
  absl::Status read =
      client->ReadManifest(found->run, found->manifest.version(), true, [&](uint32_t, const v1::BlockHead& head, absl::string_view bytes) {
        bytes_read += bytes.size();
        ++blocks;
        if (head.tensor() < tensors) missing.erase({head.tensor(), head.first()});
        return absl::OkStatus();
      });
  if (read.ok() && !missing.empty()) {
    const auto& [tensor, first] = *missing.begin();
    read = absl::DataLossError(absl::StrCat(missing.size(), " blocks are missing; the first: tensor ",
                                            found->run.spec().tensors(static_cast<int>(tensor)).name(), " at element ", first));
  }
  if (!read.ok()) return read;
  if (globals.json) {
    std::printf("%s\n",
                Json{{"ok", true}, {"version", found->manifest.version()}, {"tensors", tensors}, {"blocks", blocks}, {"bytes", bytes_read}}
                    .dump()
                    .c_str());
  } else {
    std::printf("ok: %s@%lu: %d servers, %u tensors, %lu blocks, %s, all checksums match\n", found->manifest.run().c_str(),
                static_cast<unsigned long>(found->manifest.version()), found->manifest.shards_size(), tensors,
                static_cast<unsigned long>(blocks), HumanBytes(bytes_read).c_str());
  }
  return absl::OkStatus();
}

absl::Status Save(Globals& globals, const std::string& name) {
  auto client = globals.Connect();
  if (!client.ok()) return client.status();
  auto manifest = client->Checkpoint(name);
  if (!manifest.ok()) return manifest.status();
  if (globals.json) {
    std::printf("%s\n", Json{{"run", name}, {"version", manifest->version()}, {"bytes", BytesOf(*manifest)}}.dump().c_str());
  } else {
    std::printf("%s@%lu\n", name.c_str(), static_cast<unsigned long>(manifest->version()));
    Message(
        absl::StrCat("saved ", HumanBytes(BytesOf(*manifest)), "; look with `ballastctl ckpt show ", name, "@", manifest->version(), "`"));
  }
  return absl::OkStatus();
}

absl::Status Export(Globals& globals, const std::string& text, const std::string& dir) {
  auto client = globals.Connect();
  if (!client.ok()) return client.status();
  auto found = Find(*client, text);
  if (!found.ok()) return found.status();
  const v1::RunSpec& spec = found->run.spec();
  std::vector<std::string> values;
  for (const v1::TensorSpec& t : spec.tensors()) values.emplace_back(Elements(t) * (t.dtype() == v1::I64 ? 8 : 4), '\0');
  absl::Status read = client->ReadManifest(
      found->run, found->manifest.version(), false, [&](uint32_t server, const v1::BlockHead& head, absl::string_view bytes) {
        const size_t element = head.codec() == v1::CODEC_I64 ? 8 : 4;
        if (head.tensor() >= values.size() || head.first() * element + bytes.size() > values[head.tensor()].size()) {
          return absl::DataLossError(absl::StrCat("server ", server, " sent a block that the run's layout does not have"));
        }
        std::memcpy(values[head.tensor()].data() + head.first() * element, bytes.data(), bytes.size());
        return absl::OkStatus();
      });
  if (!read.ok()) return read;
  std::vector<ExportTensor> tensors;
  for (int i = 0; i < spec.tensors_size(); ++i) {
    const v1::TensorSpec& t = spec.tensors(i);
    if (!t.persistent()) continue;  // not part of a state dict
    const std::vector<int64_t> shape(t.shape().begin(), t.shape().end());
    tensors.push_back({t.name(), t.source_dtype(), shape, &values[static_cast<size_t>(i)]});
    for (const std::string& alias : t.aliases()) tensors.push_back({alias, t.source_dtype(), shape, &values[static_cast<size_t>(i)]});
  }
  auto written = WriteSafetensors(
      dir, tensors, {{"format", "pt"}, {"ballast_run", spec.name()}, {"ballast_version", std::to_string(found->manifest.version())}});
  if (!written.ok()) return written.status();
  if (globals.json) {
    std::printf("%s\n", Json{{"run", spec.name()}, {"version", found->manifest.version()}, {"files", *written}}.dump().c_str());
  } else {
    for (const std::string& file : *written) std::printf("%s\n", file.c_str());
  }
  return absl::OkStatus();
}

}  // namespace

void AddCheckpointCommands(CLI::App& app, Globals& globals) {
  static constexpr char kWhich[] = "The run; of its checkpoints the newest, or that of VERSION";
  CLI::App* ckpt = app.add_subcommand("ckpt", "Checkpoints");
  ckpt->require_subcommand(1);
  auto name = std::make_shared<std::string>();
  auto add = [&](const char* command, const char* help, const char* argument, absl::Status (*body)(Globals&, const std::string&)) {
    CLI::App* sub = ckpt->add_subcommand(command, help);
    sub->add_option(argument, *name, absl::StrContains(argument, '@') ? kWhich : "The run")->required();
    Bind(sub, globals, [name, body, &globals] { return body(globals, *name); });
  };
  add("ls", "List the checkpoints of a run", "RUN", List);
  add("show", "Tensors of a checkpoint: dtype, shape, servers, norm, non-finite count", "RUN[@VERSION]", Show);
  add("save", "Take a checkpoint now", "RUN", Save);

  // With --dir: in data directories of servers that are stopped, each given once.
  static constexpr char kDirs[] = "Data directory of a stopped server; again for each server. No server is asked";
  auto dirs = std::make_shared<std::vector<std::string>>();
  CLI::App* verify = ckpt->add_subcommand("verify", "Read every block and compare checksums; exit code 1 when damaged");
  CLI::Option* which = verify->add_option("RUN[@VERSION]", *name, absl::StrCat(kWhich, "; with --dir: all, when left out"));
  verify->add_option("--dir", *dirs, kDirs);
  Bind(verify, globals, [name, dirs, which, &globals] {
    if (!dirs->empty()) return VerifyStored(globals, *dirs, *name);
    return which->empty() ? absl::InvalidArgumentError("say which run, or --dir") : Verify(globals, *name);
  });
  auto other = std::make_shared<std::string>();
  CLI::App* diff = ckpt->add_subcommand("diff", "How far two checkpoints are apart, tensor by tensor");
  diff->add_option("RUN@VERSION", *name, "One checkpoint")->required();
  diff->add_option("OTHER@VERSION", *other, "The other one")->required();
  diff->add_option("--dir", *dirs, kDirs)->required();
  Bind(diff, globals, [name, other, dirs, &globals] { return DiffStored(globals, *dirs, *name, *other); });
  CLI::App* rm = ckpt->add_subcommand("rm", "Remove a checkpoint; never the newest healthy one, nor one that a start needs");
  auto dir = std::make_shared<std::string>();
  rm->add_option("RUN@VERSION", *name, "The checkpoint")->required();
  rm->add_option("--dir", *dir, "Data directory of server 0, stopped")->required();
  Bind(rm, globals, [name, dir, &globals] { return RemoveStored(globals, *dir, *name); });

  auto format = std::make_shared<std::string>("safetensors");
  CLI::App* exported = ckpt->add_subcommand("export", "Write the state dict to files");
  exported->add_option("RUN[@VERSION]", *name, kWhich)->required();
  exported->add_option("-o,--output", *dir, "Folder to write into")->required();
  exported->add_option("--format", *format, "File format")->capture_default_str()->check(CLI::IsMember({"safetensors"}));
  // `format` is captured only so that it lives as long as the option that writes to it.
  Bind(exported, globals, [name, dir, format, &globals] { return Export(globals, *name, *dir); });
}

}  // namespace ballast::ctl
