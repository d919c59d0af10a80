#include "server/storage/faults/disk_history.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>

namespace ballast::testing {
namespace {

constexpr uint64_t kSector = 512;  // what a disk writes whole

uint64_t SizeOf(int fd) {
  struct stat st;
  return ::fstat(fd, &st) == 0 ? static_cast<uint64_t>(st.st_size) : 0;
}

void RawWrite(int fd, uint64_t offset, const char* data, size_t bytes) { (void)::syscall(SYS_pwrite64, fd, data, bytes, offset); }

}  // namespace

Inode InodeOf(int fd) {
  struct stat st;
  if (::fstat(fd, &st) != 0) return {0, 0};
  return {st.st_dev, st.st_ino};
}

std::string DirOf(const std::string& path) { return path.substr(0, path.find_last_of('/')); }

DiskHistory::File& DiskHistory::Tracked(int fd) {
  File& file = files_[InodeOf(fd)];
  if (file.fd < 0) {
    const std::string link = "/proc/self/fd/" + std::to_string(fd);
    file.fd = static_cast<int>(::syscall(SYS_openat, AT_FDCWD, link.c_str(), O_RDWR | O_CLOEXEC, 0));
  }
  return file;
}

void DiskHistory::BeforeWrite(int fd, uint64_t offset, uint64_t bytes) {
  File& file = Tracked(fd);
  Change& change = file.changes.emplace_back();
  change.offset = offset;
  change.bytes = bytes;
  change.size_before = SizeOf(fd);
  change.before.resize(bytes);
  const long n = ::syscall(SYS_pread64, file.fd, change.before.data(), bytes, offset);
  change.before.resize(n > 0 ? static_cast<size_t>(n) : 0);
}

void DiskHistory::BeforeResize(int fd, uint64_t size) {
  const uint64_t old = SizeOf(fd);
  if (old == size) return;
  BeforeWrite(fd, std::min(old, size), size < old ? old - size : 0);
  Tracked(fd).changes.back().whole = true;
}

std::string DiskHistory::KeepForUnlink(const std::string& path) {
  struct stat st;
  if (::lstat(path.c_str(), &st) != 0 || !S_ISREG(st.st_mode)) return "";
  std::string kept = trash_ + "/" + std::to_string(++next_);
  return ::syscall(SYS_link, path.c_str(), kept.c_str()) == 0 ? kept : "";
}

void DiskHistory::Note(NameChange change) {
  change.order = ++next_;
  names_[DirOf(change.path)].push_back(std::move(change));
}
void DiskHistory::Created(const std::string& path) { Note({Kind::kCreated, path, "", ""}); }
void DiskHistory::MadeDir(const std::string& path) { Note({Kind::kMadeDir, path, "", ""}); }
void DiskHistory::Unlinked(const std::string& path, const std::string& kept) { Note({Kind::kUnlinked, path, "", kept}); }
void DiskHistory::Renamed(const std::string& from, const std::string& to, const std::string& kept) {
  Note({Kind::kRenamed, to, from, kept});
}

void DiskHistory::Synced(int fd) {
  const auto it = files_.find(InodeOf(fd));
  if (it == files_.end()) return;
  File& file = it->second;
  file.changes.resize(std::min(file.changes.size(), file.doomed));
  if (!file.changes.empty()) return;
  (void)::syscall(SYS_close, file.fd);
  files_.erase(it);
}

void DiskHistory::SyncFailed(int fd) {
  const auto it = files_.find(InodeOf(fd));
  if (it != files_.end()) it->second.doomed = it->second.changes.size();
}

void DiskHistory::SyncedDir(const std::string& dir) {
  for (const NameChange& change : names_[dir]) {
    if (!change.kept.empty()) (void)::syscall(SYS_unlink, change.kept.c_str());
  }
  names_.erase(dir);
}

// Of what lay in the file already, each sector ends as it was after one of its writes: the newest are taken back one by one until one
// stays. What was appended is there up to a random byte: file systems grow a file only over data that is written.
void DiskHistory::TakeBack(File& file, std::mt19937_64& random) {
  if (file.changes.empty()) return;
  const bool shrunk = std::any_of(file.changes.begin(), file.changes.end(), [](const Change& c) { return c.whole && c.bytes != 0; });
  const bool everything = file.doomed != 0 || random() % 3 == 0;
  if (shrunk && !everything) return;
  const unsigned odds = 2 + static_cast<unsigned>(random() % 4);  // one write in so many is taken back
  const uint64_t synced_size = file.changes.front().size_before, size_now = SizeOf(file.fd);
  std::set<uint64_t> settled;  // sectors
  for (auto change = file.changes.rbegin(); change != file.changes.rend(); ++change) {
    for (uint64_t at = change->offset, end; at < std::min(change->offset + change->bytes, synced_size); at = end) {
      const uint64_t sector = at / kSector;
      end = std::min({(sector + 1) * kSector, change->offset + change->bytes, synced_size});
      if (settled.contains(sector)) continue;
      if (!everything && random() % odds != 0) {
        settled.insert(sector);
        continue;
      }
      std::string old = change->before.substr(std::min<uint64_t>(at - change->offset, change->before.size()), end - at);
      old.resize(end - at, '\0');
      RawWrite(file.fd, at, old.data(), old.size());
    }
  }
  if (everything) {
    (void)::syscall(SYS_ftruncate, file.fd, synced_size);
  } else if (size_now > synced_size) {
    (void)::syscall(SYS_ftruncate, file.fd, synced_size + random() % (size_now - synced_size + 1));
  }
}

void DiskHistory::TakeBack(const NameChange& change) {
  switch (change.kind) {
    case Kind::kCreated:
      (void)::syscall(SYS_unlink, change.path.c_str());
      break;
    case Kind::kMadeDir: {
      std::error_code ignored;
      std::filesystem::remove_all(change.path, ignored);
      break;
    }
    case Kind::kUnlinked:
      if (!change.kept.empty()) (void)::syscall(SYS_rename, change.kept.c_str(), change.path.c_str());
      break;
    case Kind::kRenamed:
      (void)::syscall(SYS_rename, change.path.c_str(), change.from.c_str());
      if (!change.kept.empty()) (void)::syscall(SYS_rename, change.kept.c_str(), change.path.c_str());
      break;
  }
}

// A journal writes the changes of a directory in order, so the first few survive.
void DiskHistory::Lose(uint64_t seed) {
  std::mt19937_64 random(seed);
  for (auto& [inode, file] : files_) TakeBack(file, random);
  std::vector<const NameChange*> lost;
  for (const auto& [dir, changes] : names_) {
    const size_t survive = random() % (changes.size() + 1);
    for (size_t i = survive; i < changes.size(); ++i) lost.push_back(&changes[i]);
  }
  std::sort(lost.begin(), lost.end(), [](const NameChange* a, const NameChange* b) { return a->order > b->order; });
  for (const NameChange* change : lost) TakeBack(*change);
  Forget();
}

void DiskHistory::Forget() {
  for (auto& [inode, file] : files_) (void)::syscall(SYS_close, file.fd);
  files_.clear();
  names_.clear();
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(trash_, ignored)) (void)::syscall(SYS_unlink, entry.path().c_str());
}

}  // namespace ballast::testing
