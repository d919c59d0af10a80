// What a fault disk remembers of changes that no fsync has covered, and how it takes them back. Knows files by inode and names by
// directory. Threads: one at a time (the FaultDisk's lock). Uses raw system calls only: the others are taken over.
#ifndef BALLAST_SERVER_STORAGE_FAULTS_DISK_HISTORY_H_
#define BALLAST_SERVER_STORAGE_FAULTS_DISK_HISTORY_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace ballast::testing {

using Inode = std::pair<uint64_t, uint64_t>;  // device, number

class DiskHistory {
 public:
  explicit DiskHistory(std::string trash) : trash_(std::move(trash)) {}
  ~DiskHistory() { Forget(); }

  // ---- before the change. `fd` may be write-only.
  void BeforeWrite(int fd, uint64_t offset, uint64_t bytes);
  void BeforeResize(int fd, uint64_t size);
  // Gives the name of a hard link or moved file that keeps what `path` is until it is durable; "" when there is nothing.
  std::string KeepForUnlink(const std::string& path);

  // ---- after it
  void Created(const std::string& path);
  void Linked(const std::string& path) { Created(path); }
  void MadeDir(const std::string& path);
  void Unlinked(const std::string& path, const std::string& kept);
  void Renamed(const std::string& from, const std::string& to, const std::string& kept);

  void Synced(int fd);
  void SyncedDir(const std::string& dir);
  void SyncFailed(int fd);  // what was written is lost, whatever comes later

  // Takes back a part of all this, chosen by `seed`, and forgets it.
  void Lose(uint64_t seed);

 private:
  struct Change {
    uint64_t offset = 0;
    uint64_t bytes = 0;
    std::string before;  // of [offset, offset + bytes), as far as the file went
    uint64_t size_before = 0;
    bool whole = false;  // a truncation: all of it or nothing
  };
  struct File {
    int fd = -1;  // our own, read and write
    std::vector<Change> changes;
    size_t doomed = 0;  // so many of them can never become durable
  };
  enum class Kind { kCreated, kMadeDir, kUnlinked, kRenamed };
  struct NameChange {
    Kind kind;
    std::string path;
    std::string from;  // of a rename
    std::string kept;
    uint64_t order = 0;
  };

  File& Tracked(int fd);
  void TakeBack(File& file, std::mt19937_64& random);
  static void TakeBack(const NameChange& change);
  void Note(NameChange change);
  void Forget();

  const std::string trash_;
  uint64_t next_ = 0;
  std::map<Inode, File> files_;
  std::map<std::string, std::vector<NameChange>> names_;  // by directory
};

Inode InodeOf(int fd);
std::string DirOf(const std::string& path);

}  // namespace ballast::testing

#endif  // BALLAST_SERVER_STORAGE_FAULTS_DISK_HISTORY_H_
