// Any sequence of calls to a live server, over real gRPC: good ones, so that runs are created, trained, checkpointed and rolled back, with
// spoiled ones in between, half-closes and cancels at any place. After each sequence: the server serves, an honest run beside them has lost
// nothing, and the process has not grown; now and then that run takes a step, and the server is restarted from what is on its disk.
//
// State outlives an input, so what broke a promise may have begun before it. The inputs since the server was made are in the file that is
// named when the process ends; that file is itself an input, which plays them all.
#include <google/protobuf/stubs/logging.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/strip.h"
#include "tests/fuzz/hostile_peer.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/live_server.h"
#include "tests/fuzz/raw_call.h"
#include "tests/fuzz/temp_folder.h"

namespace ballast::fuzz {
namespace {

constexpr uint64_t kSequencesOfStep = 16, kSequencesOfRestart = 512, kSequencesOfServer = 4096;
constexpr uint64_t kGrowthMax = uint64_t{384} << 20;
constexpr absl::string_view kHistory = "HISTORY\n";

uint64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

class Campaign {
 public:
  // With a server: what its libraries keep until the process ends is then older than this and goes later.
  Campaign() { Renew(); }
  ~Campaign() { std::fprintf(stderr, "%llu calls\n", static_cast<unsigned long long>(RawCall::made())); }

  void Play(absl::string_view input) {
    if (played_ == kSequencesOfServer) Renew();
    Keep(input);
    Input in(reinterpret_cast<const uint8_t*>(input.data()), input.size());
    PlayHostilePeer(in, *server_);
    server_->CheckStatus();
    if (++played_ % kSequencesOfStep == 0) {
      server_->CheckStep();
      server_->RemoveOtherRuns();
      CheckMemory();
    }
    if (played_ % kSequencesOfRestart == 0) server_->Restart();
  }
  void PlayHistory(absl::string_view inputs) {
    if (played_ > 0) Renew();
    while (inputs.size() >= sizeof(uint32_t)) {
      uint32_t bytes = 0;
      std::memcpy(&bytes, inputs.data(), sizeof bytes);
      inputs.remove_prefix(sizeof bytes);
      const std::string input(inputs.substr(0, bytes));
      inputs.remove_prefix(input.size());
      Play(input);
    }
  }

 private:
  void Renew() {
    played_ = 0;
    server_.reset();
    server_ = std::make_unique<LiveServer>();
    history_.close();
    history_.open(TempFolder() + "/history", std::ios::binary | std::ios::trunc);
    history_ << kHistory << std::flush;
    std::fprintf(stderr, "what leads to a finding: %s/history\n", TempFolder().c_str());
  }
  void Keep(absl::string_view input) {
    const uint32_t bytes = static_cast<uint32_t>(input.size());
    history_.write(reinterpret_cast<const char*>(&bytes), sizeof bytes);
    history_.write(input.data(), static_cast<std::streamsize>(input.size()));
    history_.flush();
  }
  // Against the first full round: until then caches fill.
  void CheckMemory() {
    const uint64_t resident = ResidentBytes();
    if (played_ == kSequencesOfRestart && settled_ == 0) settled_ = resident;
    if (settled_ != 0 && resident > settled_ + kGrowthMax) {
      std::fprintf(stderr, "%llu MiB resident, %llu MiB at first\n", static_cast<unsigned long long>(resident >> 20),
                   static_cast<unsigned long long>(settled_ >> 20));
      FUZZ_CHECK(!"the process has not grown");
    }
  }

  std::unique_ptr<LiveServer> server_;
  std::ofstream history_;
  uint64_t played_ = 0;
  uint64_t settled_ = 0;
};

}  // namespace
}  // namespace ballast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ballast::fuzz;
  static const auto quiet = google::protobuf::SetLogHandler(nullptr);
  (void)quiet;
  (void)TempFolder();  // made first, so that it goes last
  static Campaign campaign;
  absl::string_view input(reinterpret_cast<const char*>(data), size);
  if (absl::ConsumePrefix(&input, kHistory)) {
    campaign.PlayHistory(input);
  } else {
    campaign.Play(input);
  }
  return 0;
}
