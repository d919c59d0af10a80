// A real ballast-server (server 0 of one) in this process, with its data in memory, and an honest run on it that shows that it still does
// what it promises, whatever others send: each step of it is decided, and its weights are exactly what its steps make of them.
// One thread drives it.
#ifndef BALLAST_TESTS_FUZZ_LIVE_SERVER_H_
#define BALLAST_TESTS_FUZZ_LIVE_SERVER_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "ballast/v1/control.pb.h"
#include "server/server.h"
#include "tests/fuzz/raw_call.h"

namespace ballast::fuzz {

// Of "abc" (FIPS 180-2, appendix B.1).
inline constexpr char kModelSha256[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

// Tensors "w" [5] F32 OPT and "n" [1] I64 SUM; plain SGD with learning rate 1 on row sums: w loses what is contributed.
v1::RunSpec SmallSpec(const std::string& name);
// A contribution to a run of SmallSpec: `value` for each element of w, `count` for n. The only chunk that a server needs.
v1::Chunk SmallChunk(const v1::Run& run, const v1::Uid& uid, float value, int64_t count);
v1::Hello HonestHello();

class LiveServer {
 public:
  LiveServer();
  ~LiveServer();

  // A crash and a start on what it left; every run but the honest one is removed now and then, by DeleteRun.
  void Restart();
  void RemoveOtherRuns();
  // Promises: the process serves, the honest run is listed with all its steps.
  void CheckStatus();
  // Further: the honest run takes a step, and a reader gets its weights.
  void CheckStep();

  const std::shared_ptr<grpc::Channel>& channel() const { return hostile_; }  // for others
  const std::string& honest_run() const { return honest_; }

 private:
  void Start();
  void Stop();
  void CreateHonestRun();
  void OpenSession();
  void Train(const v1::Batch& batch, float value);
  void CheckWeights();
  template <typename Response>
  Response Ask(const std::string& method, const google::protobuf::Message& request);
  v1::WorkDown Expect(v1::WorkDown::KindCase kind);

  const std::string dir_;
  const std::string honest_;  // nobody guesses this name
  std::unique_ptr<Server> server_;
  std::thread watcher_;
  std::atomic<bool> stopping_{false}, failed_{false};
  std::shared_ptr<grpc::Channel> channel_, hostile_;

  std::unique_ptr<RawCall> work_, push_;
  v1::WorkDown::Welcome welcome_;
  uint64_t counter_ = 0;
  uint64_t steps_ = 0;
};

}  // namespace ballast::fuzz

#endif  // BALLAST_TESTS_FUZZ_LIVE_SERVER_H_
