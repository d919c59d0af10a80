// One session spoken by hand over the generated stubs: any protobuf client can do what this does. For one test thread.
#ifndef BALLAST_TESTS_INTEGRATION_RAW_SESSION_H_
#define BALLAST_TESTS_INTEGRATION_RAW_SESSION_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "ballast/v1/control.grpc.pb.h"
#include "ballast/v1/shard.grpc.pb.h"
#include "tests/integration/in_process_cluster.h"

namespace ballast::testing {

inline constexpr uint32_t kInitPartitionNumber = 0xffffffff;

v1::Batch TestBatch(uint64_t seq, uint32_t rows);
v1::Batch InitBatch();

class RawSession {
 public:
  // Opens the session, again while a server is away; not `open()` when it was refused.
  RawSession(const InProcessCluster& cluster, const std::string& run, uint32_t protocol = 1);
  ~RawSession();  // ends it as a crash would

  const grpc::Status& refusal() const { return refusal_; }
  bool open() const { return welcome_.session() != 0; }
  const v1::WorkDown::Welcome& welcome() const { return welcome_; }

  void Send(const v1::WorkUp& message) {
    if (work_ != nullptr) work_->Write(message);
  }
  // The next message of that kind, or of one of those kinds; others are kept for later.
  v1::WorkDown Expect(v1::WorkDown::KindCase kind);
  v1::WorkDown Expect(const std::set<v1::WorkDown::KindCase>& kinds);

  v1::WorkDown::Grant Claim(const v1::Batch& batch);
  // Pushes to every server, again to one that still recovers the run; waits for the receipts. `values` of tensor "w"; "n" gets `count`.
  std::vector<v1::Receipt> Push(const v1::Uid& uid, const std::vector<float>& values, int64_t count);
  v1::PushReply PushOne(uint32_t server, const v1::Chunk& chunk);
  void Submit(const v1::Uid& uid, const std::vector<v1::Batch>& batches, uint64_t base_version, const std::vector<v1::Receipt>& receipts);
  // Push, Submit, both again when a receipt is refused, until it is decided and accepted. Returns the version.
  uint64_t Train(const std::vector<v1::Batch>& batches, uint64_t base_version, const std::vector<float>& values, int64_t count);
  v1::Uid NewUid();
  std::vector<v1::Chunk> Chunks(uint32_t server, const v1::Uid& uid, const std::vector<float>& values, int64_t count) const;

 private:
  using PushStream = grpc::ClientReaderWriter<v1::Chunk, v1::PushReply>;
  struct Pushing {
    std::unique_ptr<grpc::ClientContext> call;
    std::unique_ptr<v1::Shard::Stub> stub;
    std::unique_ptr<PushStream> stream;
  };
  Pushing& PushTo(uint32_t server);

  const InProcessCluster& cluster_;
  std::unique_ptr<v1::Control::Stub> control_;
  std::unique_ptr<grpc::ClientContext> call_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkUp, v1::WorkDown>> work_;
  std::map<uint32_t, Pushing> pushing_;
  std::deque<v1::WorkDown> kept_;
  v1::WorkDown::Welcome welcome_;
  grpc::Status refusal_;
  uint64_t counter_ = 0;
};

struct Values {
  uint64_t version = 0;
  std::vector<float> w;
  std::vector<int64_t> n;
};
// All values of a run of `TestRunSpec` from all servers: version >= min_version, or those of a checkpoint. Waits for servers that still
// recover the run.
Values Pull(const InProcessCluster& cluster, const std::string& run, uint64_t min_version, uint64_t manifest = 0);

// Of "abc" (FIPS 180-2, appendix B.1), which is all that these servers ever see of a model.
inline constexpr char kModelSha256[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

// Tensors "w" [elements] OPT and "n" [1] I64 SUM; SGD with learning rate 1 and reduction SUM, so w loses what is contributed.
v1::RunSpec TestRunSpec(const std::string& name, int64_t elements);

}  // namespace ballast::testing

#endif  // BALLAST_TESTS_INTEGRATION_RAW_SESSION_H_
