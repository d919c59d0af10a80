// A disk that fails, under everything that a test runs: the system calls that change files are taken over for the whole process, so that
// the segment log, the marks and RocksDB are tested as they are shipped, without a seam in any of them. Only files below one root are
// concerned. Link it (alwayslink) and make one FaultDisk; without one every call goes straight to the kernel.
//
// What it can do: cut the power at the n-th call, which ends the process; what is left is what a real disk might leave of all that was not
// synced: each old sector of a file as it was after any of its writes; of what was appended the bytes before a random one; of a directory
// the first few of its changes. Make a kind of call fail with EIO or ENOSPC from the n-th on; flip a bit in what is read. A failed fsync
// loses its pages for good, as Linux does: a later fsync of the same file succeeds and saves nothing.
//
// Not seen: what libc writes through FILE (RocksDB's info log) and memory maps. Threads: any; one FaultDisk at a time.
#ifndef BALLAST_SERVER_STORAGE_FAULTS_FAULT_DISK_H_
#define BALLAST_SERVER_STORAGE_FAULTS_FAULT_DISK_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ballast::testing {

enum class DiskCall {
  kWrite,  // write, pwrite
  kSync,   // fsync, fdatasync, of files and directories
  kSpace,  // fallocate, ftruncate to a larger size
  kName,   // open that creates, rename, link, unlink, mkdir; also truncations
  kRead,   // pread
};

// Each call of this kind on a path that contains `path`, from the n-th on (1: the next).
struct DiskFault {
  DiskCall call = DiskCall::kWrite;
  std::string path;
  uint64_t nth = 1;
  int error = 0;         // errno; kRead only: 0 flips a bit instead
  bool for_ever = true;  // else this once
};

inline constexpr int kPowerIsOff = 86;  // exit status

class FaultDisk {
 public:
  // `root` exists; what might come back after a power loss is kept in `<root>.trash`.
  explicit FaultDisk(const std::string& root);
  ~FaultDisk();

  // The n-th call from now on that changes the disk is the last one of this process: what was not synced is lost (which part of it, says
  // `seed`), and the process ends with kPowerIsOff. 0: now.
  void CutPowerAfter(uint64_t calls, uint64_t seed);

  void Inject(const DiskFault& fault);
  void Heal();  // forgets the faults; what they lost stays lost

  uint64_t calls() const;  // that changed the disk so far
  // Paths of calls of this kind since the last Inject whose fault has struck, in order; the first is the one that failed.
  std::vector<std::string> SinceFault(DiskCall call) const;

 private:
  class Impl;
  friend class DiskCalls;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ballast::testing

#endif  // BALLAST_SERVER_STORAGE_FAULTS_FAULT_DISK_H_
