#include "server/machine.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/storage/files.h"

namespace ballast {
namespace {

constexpr uint64_t kUnlimited = UINT64_MAX;
constexpr size_t kWriteBytes = 1u << 20;
constexpr size_t kAlignment = 4096;

// "Name:   123 kB" of a file below /proc, in bytes; `otherwise` when it is not there.
uint64_t ProcValue(const std::string& path, absl::string_view name, uint64_t otherwise) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    absl::string_view rest = line;
    if (!absl::ConsumePrefix(&rest, name) || !absl::ConsumePrefix(&rest, ":")) continue;
    uint64_t kilobytes = 0;
    absl::ConsumeSuffix(&rest, " kB");
    return absl::SimpleAtoi(rest, &kilobytes) ? kilobytes << 10 : otherwise;
  }
  return otherwise;
}

// The limit of this process's control group: version 2 in its own folder, version 1 in that of the memory controller.
uint64_t GroupLimit() {
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const bool v2 = parts[1].empty();
    if (!v2 && parts[1] != "memory") continue;
    std::ifstream file(v2 ? "/sys/fs/cgroup" + parts[2] + "/memory.max" : "/sys/fs/cgroup/memory" + parts[2] + "/memory.limit_in_bytes");
    std::string text;
    uint64_t limit = 0;
    if (std::getline(file, text) && absl::SimpleAtoi(text, &limit)) return limit;  // "max": none
  }
  return kUnlimited;
}

uint64_t Left(uint64_t limit, uint64_t taken) { return limit == kUnlimited ? kUnlimited : limit - std::min(limit, taken); }

}  // namespace

uint64_t FreeMemory() {
  const std::string self = "/proc/self/status";
  struct rlimit space = {RLIM_INFINITY, RLIM_INFINITY};
  (void)::getrlimit(RLIMIT_AS, &space);
  const uint64_t addresses = space.rlim_cur == RLIM_INFINITY ? kUnlimited : Left(space.rlim_cur, ProcValue(self, "VmSize", 0));
  const uint64_t group = Left(GroupLimit(), ProcValue(self, "VmRSS", 0));
  return std::min({addresses, group, ProcValue("/proc/meminfo", "MemAvailable", kUnlimited)});
}

double DiskBytesPerSecond(const std::string& dir, uint64_t bytes) {
  UniqueFd file(::open(dir.c_str(), O_TMPFILE | O_WRONLY | O_DIRECT | O_CLOEXEC, 0600));
  if (file.get() < 0) file = UniqueFd(::open(dir.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
  const std::unique_ptr<void, decltype(&std::free)> buffer(std::aligned_alloc(kAlignment, kWriteBytes), &std::free);
  if (file.get() < 0 || buffer == nullptr) return 0;
  std::fill_n(static_cast<char*>(buffer.get()), kWriteBytes, '\x5a');
  const auto start = std::chrono::steady_clock::now();
  uint64_t written = 0;
  for (; written < bytes; written += kWriteBytes) {
    if (::write(file.get(), buffer.get(), kWriteBytes) != static_cast<ssize_t>(kWriteBytes)) return 0;
  }
  if (::fdatasync(file.get()) != 0) return 0;
  return static_cast<double>(written) / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace ballast
