#include "server/replay_command.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/config.h"
#include "server/shard/run_shard.h"

namespace ballast {
namespace {

namespace fs = std::filesystem;

bool IsShardDir(const fs::path& path) { return absl::StartsWith(path.filename().string(), "shard-"); }

std::vector<std::string> ShardDirs(const std::string& dir) {
  if (IsShardDir(fs::path(dir))) return {dir};
  std::vector<std::string> dirs;
  std::error_code error;
  for (fs::recursive_directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    if (it->is_directory(error) && IsShardDir(it->path())) dirs.push_back(it->path().string());
  }
  std::sort(dirs.begin(), dirs.end());
  return dirs;
}

void Print(const ReplayResult& result, bool json) {
  const std::string hash = absl::StrFormat("%016x", result.hash);
  if (json) {
    const nlohmann::ordered_json line = {
        {"run", result.run}, {"shard", result.shard}, {"version", result.version}, {"index", result.index}, {"hash", hash}};
    std::printf("%s\n", line.dump().c_str());
  } else {
    std::printf("run %s  shard %u  version %s  decision %s  hash %s\n", result.run.c_str(), result.shard,
                absl::StrCat(result.version).c_str(), absl::StrCat(result.index).c_str(), hash.c_str());
  }
}

}  // namespace

int ReplayAndPrint(const std::string& dir, bool json) {
  const std::vector<std::string> shards = ShardDirs(dir);
  if (shards.empty()) std::fprintf(stderr, "ballast-server: no run's log below %s\n", dir.c_str());
  int exit_code = shards.empty() ? kExitFailed : kExitOk;
  for (const std::string& shard : shards) {
    const auto result = ReplayShardLog(shard);
    if (result.ok()) {
      Print(*result, json);
    } else {
      std::fprintf(stderr, "ballast-server: %s: %s\n", shard.c_str(), std::string(result.status().message()).c_str());
      exit_code = kExitFailed;
    }
  }
  return exit_code;
}

}  // namespace ballast
