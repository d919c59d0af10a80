#include "tests/fuzz/hostile_peer.h"

#include <cmath>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <string>

#include "ballast/v1/control.pb.h"
#include "ballast/v1/shard.pb.h"
#include "tests/fuzz/mutate.h"
#include "tests/fuzz/raw_call.h"

namespace ballast::fuzz {
namespace {

constexpr int kCallsMax = 40;  // of a sequence
constexpr Milliseconds kShortly{20};
constexpr uint32_t kInitPartition = 0xffffffff;
const std::string kControl = "/ballast.v1.Control/", kShard = "/ballast.v1.Shard/";

class Peer {
 public:
  Peer(Input& in, LiveServer& server) : in_(in), server_(server) {}

  void Play() {
    for (int n = 0; n < kCallsMax && !in_.empty(); ++n) OneCall();
    // Streams that are half-closed end by themselves.
    for (auto* call : {&work_, &push_}) {
      if (*call == nullptr || !in_.Bool()) continue;
      (*call)->HalfClose();
      FUZZ_CHECK((*call)->End());
    }
  }

 private:
  void OneCall() {
    switch (in_.Below(20)) {
      case 0:
        return Create();
      case 1:
        return Begin();
      case 2:
      case 3:
        return OpenWork();
      case 4:
      case 5:
      case 6:
        return TrainOne();
      case 7:
        return Claim();
      case 8:
        return Push();
      case 9:
        return Submit();
      case 10:
        return Say();
      case 11:
        return Pull();
      case 12:
        return Manifests();
      case 13:
        return Epochs();
      case 14:
        return Listings();
      case 15:
        return Artifacts();
      case 16:
        return Process();
      case 17:
        return CloseOne();
      case 18:
        if (work_ != nullptr) Hear(kShortly);
        return;
      default:
        return RawBytes();
    }
  }

  // ---- runs
  std::string AnyRun() { return in_.Below(8) == 7 ? in_.Text(12) : std::string(1, static_cast<char>('a' + in_.Below(2))); }

  void Create() {
    v1::RunSpec spec = SmallSpec(AnyRun());
    const uint8_t how = in_.Byte();
    if ((how & 1) != 0) spec.set_durability(v1::DURABILITY_CHECKPOINT);
    if ((how & 2) != 0) spec.set_step_rows(8);
    if ((how & 4) != 0) spec.set_clip_norm(1);
    if ((how & 8) != 0) spec.mutable_optimizer()->set_kind(v1::OptimizerSpec::ADAM);
    if ((how & 16) != 0) spec.set_checkpoint_versions(2);
    if ((how & 32) != 0) spec.set_staleness_max(1);
    if ((how & 64) != 0) spec.set_push_codec(v1::CODEC_INT8);
    Call("CreateRun", spec);
  }
  void Begin() {
    v1::Epoch epoch;
    epoch.set_run(AnyRun());
    epoch.set_epoch(1 + static_cast<uint32_t>(in_.Below(3)));
    epoch.set_partitions(1 + static_cast<uint32_t>(in_.Below(2)));
    epoch.set_batch_rows(4);
    epoch.set_schema("x:int32");
    Call("BeginEpoch", epoch);
  }
  void Epochs() {
    if (in_.Bool()) {
      v1::FeedRef feed;
      feed.set_run(AnyRun());
      feed.set_epoch(1 + static_cast<uint32_t>(in_.Below(3)));
      feed.set_partition(static_cast<uint32_t>(in_.Below(2)));
      return Call("OpenFeed", feed);
    }
    v1::EpochCounts counts;
    counts.set_run(AnyRun());
    counts.set_epoch(1 + static_cast<uint32_t>(in_.Below(3)));
    for (uint32_t n = 0; n < in_.Below(3); ++n) {
      v1::PartitionCount* c = counts.add_partitions();
      c->set_partition(n);
      c->set_batches(in_.Below(4));
      c->set_rows(4 * c->batches());
    }
    Call("CommitEpoch", counts);
  }
  void Manifests() {
    v1::RunRef ref;
    ref.set_run(AnyRun());
    switch (in_.Below(8)) {
      case 0:
        return Call("DeleteRun", ref);
      case 1: {
        v1::StopRequest stop;
        stop.set_run(ref.run());
        return Call("StopRun", stop);
      }
      case 2:
      case 3: {
        v1::ManifestRef to;
        to.set_run(ref.run());
        to.set_version(in_.Below(8));
        return Call("Rollback", to);
      }
      case 4:
        return Call("ListManifests", ref);
      default:
        return Call("Checkpoint", ref);
    }
  }
  void Listings() {
    v1::DecisionRange range;
    range.set_run(AnyRun());
    range.set_first_index(in_.Below(4));
    range.set_last_index(in_.Below(8));
    v1::RunFilter filter;
    filter.set_name(AnyRun());
    filter.set_layout(in_.Bool());
    switch (in_.Below(3)) {
      case 0:
        return Call("ListDecisions", range);
      case 1:
        return Call("ListRuns", filter);
      default: {
        v1::ClusterRequest cluster;
        return Call("Cluster", cluster);
      }
    }
  }
  void Artifacts() {
    if (in_.Bool()) {
      v1::ArtifactRef ref;
      ref.set_sha256(kModelSha256);
      return Call("GetArtifact", ref);
    }
    v1::Piece piece;
    piece.set_sha256(std::string(64, 'a'));
    piece.set_data(in_.Text(40));
    piece.set_total_bytes(in_.Bool() ? piece.data().size() : in_.U64());
    Call("PutArtifact", piece);
  }
  // The streams of processes: a worker's, and those of a second server, which this cluster does not have.
  void Process() {
    if (in_.Bool()) {
      v1::ShardUp up;
      *up.mutable_open()->mutable_hello() = HonestHello();
      up.mutable_open()->set_index(1);
      up.mutable_open()->set_address("127.0.0.1:1");
      return Call("Follow", up);
    }
    v1::WorkerUp up;
    *up.mutable_hello() = HonestHello();
    up.set_name(in_.Bool() ? "worker" : in_.Text(8));
    up.set_address("127.0.0.1:1");
    Call("Attach", up);
  }

  // ---- a session
  void OpenWork() {
    const uint64_t resume = in_.Below(8) == 7 ? in_.U64() : 0;
    work_ = std::make_unique<RawCall>(server_.channel(), kControl + "Work");
    push_ = std::make_unique<RawCall>(server_.channel(), kShard + "Push");
    granted_.clear();
    receipts_.clear();
    welcome_ = {};
    v1::WorkUp up;
    *up.mutable_open()->mutable_hello() = HonestHello();
    up.mutable_open()->set_run(AnyRun());
    up.mutable_open()->set_worker("w");
    up.mutable_open()->set_resume_session(resume);
    Send(up);
    Hear(kPatience);
  }
  v1::Batch AnyBatch() {
    v1::Batch batch;
    if (in_.Below(4) == 3) {
      batch.set_partition(kInitPartition);
      return batch;
    }
    batch.set_epoch(1 + static_cast<uint32_t>(in_.Below(8) == 7));
    batch.set_seq(in_.Bool() ? in_.Below(4) : seq_++);
    batch.set_rows(4);
    batch.set_fingerprint(1000 + batch.seq());
    return batch;
  }
  v1::Uid NewUid() {
    v1::Uid uid;
    uid.set_session(welcome_.session());
    uid.set_counter(in_.Below(8) == 7 ? counter_ : ++counter_);
    return uid;
  }
  void Claim() {
    v1::WorkUp up;
    *up.mutable_claim()->mutable_batch() = AnyBatch();
    if (in_.Below(8) == 7) *up.mutable_claim()->mutable_uid() = NewUid();
    Send(up);
  }
  void Push() {
    if (push_ == nullptr) return;
    const v1::Uid uid = NewUid();
    static constexpr float kValues[] = {
        1, -1, 0, 1e30f, 1e-40f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()};
    v1::Chunk chunk = SmallChunk(welcome_.run(), uid, kValues[in_.Below(std::size(kValues))], 1);
    const std::string bytes = Spoil(in_, chunk);
    if (!MaySend(bytes) || !push_->Write(bytes, kPatience)) return;
    const auto answer = push_->Read(in_.Byte() < 230 ? Milliseconds(200) : Milliseconds(0));
    v1::PushReply reply;
    if (!answer || !reply.ParseFromString(*answer) || !reply.error().empty()) return;
    v1::Receipt& receipt = receipts_[reply.uid()];
    receipt.set_incarnation(reply.incarnation());
    receipt.set_checksum(reply.checksum());
    receipt.set_norm2(reply.norm2());
    receipt.set_proof(reply.proof());
  }
  void Submit() {
    v1::WorkUp up;
    v1::WorkUp::Submit* submit = up.mutable_submit();
    submit->mutable_uid()->set_session(welcome_.session());
    submit->mutable_uid()->set_counter(receipts_.empty() ? counter_ : receipts_.rbegin()->first);
    if (!receipts_.empty()) *submit->add_receipts() = receipts_.rbegin()->second;
    uint64_t rows = 0;
    for (const v1::WorkDown::Grant& grant : granted_) {
      *submit->add_batches() = grant.batch();
      rows += grant.batch().rows();
      submit->set_base_version(grant.base_version());
    }
    submit->set_rows(rows);
    submit->set_loss_sum(in_.Below(8) == 7 ? in_.Double() : 1);
    if (Send(up)) granted_.clear();
  }
  void Say() {
    v1::WorkUp up;
    switch (in_.Below(4)) {
      case 0:
        up.mutable_leave();
        break;
      case 1:
        *up.mutable_skip()->mutable_batch() = granted_.empty() ? AnyBatch() : granted_.front().batch();
        up.mutable_skip()->set_reason("unreadable");
        break;
      default:
        up.mutable_status()->set_blocked(in_.Bool());
        up.mutable_status()->set_rows_done(in_.Below(16));
    }
    Send(up);
  }
  // The whole way of a batch, so that sequences get far.
  void TrainOne() {
    if (work_ == nullptr) OpenWork();
    Claim();
    Hear(Milliseconds(100));
    if (granted_.empty()) return;
    Push();
    Submit();
    Hear(Milliseconds(100));
  }
  void Hear(Milliseconds limit) {
    const auto bytes = work_->Read(limit);
    Trace("Work", *work_);
    v1::WorkDown down;
    if (!bytes || !down.ParseFromString(*bytes)) return;
    if (down.has_welcome()) welcome_ = down.welcome();
    if (down.has_grant()) granted_.push_back(down.grant());
  }
  void Pull() {
    v1::Want want;
    want.set_run(AnyRun());
    want.set_number(in_.Below(4));
    want.set_min_version(in_.Below(6));
    want.set_codec(static_cast<v1::Codec>(1 + in_.Below(3)));
    if (in_.Below(4) == 3) want.set_manifest(in_.Below(8));
    want.set_slots(in_.Below(8) == 7);
    Stream(kShard + "Pull", want);
  }
  void CloseOne() {
    std::unique_ptr<RawCall>* const calls[] = {&work_, &push_};
    std::unique_ptr<RawCall>& call = *calls[in_.Below(2)];
    if (call == nullptr) return;
    if (in_.Bool()) {
      call->HalfClose();
      FUZZ_CHECK(call->End());
    }
    call.reset();
    if (work_ == nullptr) push_.reset();
  }

  // ---- sending
  void RawBytes() {
    static constexpr const char* kMethods[] = {"CreateRun",     "ListRuns",   "StopRun",  "DeleteRun",     "PutArtifact",
                                               "GetArtifact",   "BeginEpoch", "OpenFeed", "CommitEpoch",   "Checkpoint",
                                               "ListManifests", "Cluster",    "Rollback", "ListDecisions", "Attach",
                                               "Work",          "Follow",     "Push",     "Pull",          "NoSuchMethod"};
    const std::string method = kMethods[in_.Below(std::size(kMethods))];
    const std::string bytes = in_.Text(200);
    if (!MaySend(bytes)) return;
    Send(((method == "Push" || method == "Pull") ? kShard : kControl) + method, bytes);
  }
  // A run that is too large to be tried, and what would harm the honest run by its own name.
  bool MaySend(const std::string& bytes) const {
    if (bytes.find(server_.honest_run()) != std::string::npos) return false;
    v1::RunSpec spec;
    if (!spec.ParseFromString(bytes)) return true;
    double elements = 0;
    for (const v1::TensorSpec& t : spec.tensors()) {
      double of_tensor = 1;
      for (int64_t d : t.shape()) of_tensor *= static_cast<double>(d);
      elements += std::abs(of_tensor);
    }
    return elements < 1e6 || elements > 1e12;
  }
  bool Send(v1::WorkUp& up) {
    if (work_ == nullptr) return false;
    const std::string bytes = Spoil(in_, up);
    return MaySend(bytes) && work_->Write(bytes);
  }
  void Call(const std::string& method, google::protobuf::Message& request) { Stream(kControl + method, request); }
  void Stream(const std::string& method, google::protobuf::Message& message) {
    const std::string bytes = Spoil(in_, message);
    if (MaySend(bytes)) Send(method, bytes);
  }
  static void Trace(const std::string& method, const RawCall& call) {
    static const bool wanted = std::getenv("BALLAST_FUZZ_TRACE") != nullptr;
    if (!wanted) return;
    const std::string end = !call.ended() ? "goes on" : call.status().ok() ? "OK" : call.status().error_message();
    std::fprintf(stderr, "%s: %s\n", method.c_str(), end.c_str());
  }
  // Some calls wait for what may never come (a version, a checkpoint without steps): those are cancelled.
  void Send(const std::string& method, const std::string& bytes) {
    RawCall call(server_.channel(), method);
    call.Write(bytes);
    const uint8_t how = in_.Byte();
    if (how % 16 == 15) return;
    if (how % 4 != 3) call.HalfClose();
    while (call.Read(how < 200 ? Milliseconds(100) : Milliseconds(1)).has_value()) {
    }
    Trace(method, call);
    if (!call.ended()) return;
    const grpc::Status& status = call.status();
    FUZZ_CHECK(status.ok() || status.error_message().size() <= 2048);
    FUZZ_CHECK(status.error_message().find("metadata size exceeds") == std::string::npos);
    FUZZ_CHECK(status.error_code() != grpc::StatusCode::UNAVAILABLE || !status.error_message().empty());
  }

  Input& in_;
  LiveServer& server_;
  std::unique_ptr<RawCall> work_, push_;
  v1::WorkDown::Welcome welcome_;
  std::deque<v1::WorkDown::Grant> granted_;
  std::map<uint64_t, v1::Receipt> receipts_;
  uint64_t counter_ = 0;
  inline static uint64_t seq_ = 4;  // of every run: most are trained once and never come again
};

}  // namespace

void PlayHostilePeer(Input& in, LiveServer& server) { Peer(in, server).Play(); }

}  // namespace ballast::fuzz
