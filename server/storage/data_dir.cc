#include "server/storage/data_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/record/hash.h"
#include "server/failpoint.h"

namespace ballast {
namespace {

std::string IdentityText(const ServerIdentity& id) {
  return absl::StrCat("format=", kDataFormat, "\ncluster=", id.cluster, "\nserver=", id.server, "\nservers=", id.servers, "\n");
}

absl::StatusOr<UniqueFd> Lock(const std::string& dir) {
  const std::string path = dir + "/LOCK";
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (fd.get() < 0) return FileError("open", path, errno);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return FileError("lock", path, errno);
    const std::string holder(absl::StripSuffix(ReadFile(path).value_or(""), "\n"));
    return absl::FailedPreconditionError(absl::StrCat("data directory ", dir, " is in use by another ballast-server",
                                                      holder.empty() ? "" : absl::StrCat(" (process ", holder, ")"),
                                                      "; stop it, or give this server a directory of its own"));
  }
  const std::string pid = absl::StrCat(::getpid(), "\n");
  if (::ftruncate(fd.get(), 0) != 0 || ::pwrite(fd.get(), pid.data(), pid.size(), 0) < 0) return FileError("write", path, errno);
  return fd;
}

absl::Status CheckIdentity(const std::string& dir, const std::string& text, const ServerIdentity& want) {
  std::map<std::string, std::string> have;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    have.insert(std::pair<std::string, std::string>(absl::StrSplit(line, absl::MaxSplits('=', 1))));
  }
  const std::pair<const char*, std::string> wanted[] = {{"format", absl::StrCat(kDataFormat)},
                                                        {"cluster", want.cluster},
                                                        {"server", absl::StrCat(want.server)},
                                                        {"servers", absl::StrCat(want.servers)}};
  for (const auto& [key, value] : wanted) {
    if (have[key] == value) continue;
    return absl::FailedPreconditionError(absl::StrCat("data directory ", dir, " belongs to another server: its ", key, " is \"", have[key],
                                                      "\", this server's is \"", value,
                                                      "\"; start with the directory that this server wrote, or with an empty one"));
  }
  return absl::OkStatus();
}

// The number, then its XXH3-64 in hex: a flipped digit would make receipts of an earlier life good again. (Directories of the first release
// hold the number alone.)
std::string IncarnationText(uint64_t incarnation) {
  const std::string digits = absl::StrCat(incarnation);
  return absl::StrFormat("%s %016x\n", digits, Hash64(digits));
}

absl::StatusOr<uint64_t> ParseIncarnation(const std::string& path, const std::string& text) {
  uint64_t incarnation = 0;
  const std::string digits = text.substr(0, text.find_first_not_of("0123456789"));
  if (absl::SimpleAtoi(digits, &incarnation) && (text == IncarnationText(incarnation) || text == absl::StrCat(incarnation, "\n"))) {
    return incarnation;
  }
  return absl::DataLossError(absl::StrCat(path, " does not hold a number with its checksum"));
}

// `used`: lives have been counted here before; to begin anew would make receipts of earlier lives good again.
absl::StatusOr<uint64_t> GrowIncarnation(const std::string& path, bool used) {
  uint64_t incarnation = 0;
  absl::StatusOr<std::string> text = ReadFile(path);
  if (text.ok()) {
    absl::StatusOr<uint64_t> parsed = ParseIncarnation(path, *text);
    if (!parsed.ok()) return parsed;
    incarnation = *parsed;
  } else if (!absl::IsNotFound(text.status())) {
    return text.status();
  } else if (used) {
    return absl::DataLossError(absl::StrCat(path, " is missing from a directory that was in use"));
  }
  BALLAST_FAILPOINT_STATUS("incarnation-grow");
  ++incarnation;
  if (absl::Status s = WriteFileAtomically(path, IncarnationText(incarnation)); !s.ok()) return s;
  BALLAST_FAILPOINT("incarnation-grown");
  return incarnation;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DataDir>> DataDir::Open(const std::string& dir, const ServerIdentity& identity) {
  if (absl::Status s = MakeDirs(dir); !s.ok()) return s;
  absl::StatusOr<UniqueFd> lock = Lock(dir);
  if (!lock.ok()) return lock.status();

  const std::string path = dir + "/IDENTITY";
  absl::StatusOr<std::string> text = ReadFile(path);
  if (absl::IsNotFound(text.status())) {
    // Without IDENTITY nothing may be here but what an open that was cut short leaves behind.
    absl::StatusOr<std::vector<std::string>> names = ListDir(dir);
    if (!names.ok()) return names.status();
    for (const std::string& name : *names) {
      if (name == "LOCK" || name == "IDENTITY.new" || name == "lost+found") continue;
      return absl::FailedPreconditionError(absl::StrCat(
          "directory ", dir, " holds \"", name, "\" but no IDENTITY: not a data directory of ballast-server; give it an empty one"));
    }
    BALLAST_FAILPOINT_STATUS("identity-write");
    if (absl::Status s = WriteFileAtomically(path, IdentityText(identity)); !s.ok()) return s;
    BALLAST_FAILPOINT("identity-written");
  } else if (!text.ok()) {
    return text.status();
  } else if (absl::Status s = CheckIdentity(dir, *text, identity); !s.ok()) {
    return s;
  }

  absl::StatusOr<uint64_t> incarnation = GrowIncarnation(dir + "/INCARNATION", ListDir(dir + "/store").ok());
  if (!incarnation.ok()) return incarnation.status();
  return std::unique_ptr<DataDir>(new DataDir(dir, identity, *std::move(lock), *incarnation));
}

}  // namespace ballast
