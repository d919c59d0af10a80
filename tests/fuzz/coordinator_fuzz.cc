// core/coordinator under any sequence of inputs: honest ones, so that it gets far, and hostile ones in between; with rollbacks, crashes and
// restarts from what is on disk. After each input its outputs are checked against coordinator_record.h, and:
//   - a restart from what is durable is never refused, and the counters are the sums over the decisions
//   - an input causes a bounded number of outputs, and every refusal says why
#include "core/coordinator/coordinator.h"

#include <map>
#include <vector>

#include "core/coordinator/receipt.h"
#include "tests/fuzz/coordinator_record.h"
#include "tests/fuzz/input.h"

namespace ballast {
namespace {

constexpr int kInputsMax = 400;
constexpr size_t kOutputsMax = 4096;  // of one input

class Fuzzer {
 public:
  explicit Fuzzer(fuzz::Input& in) : in_(in) {
    const uint8_t kind = in_.Byte();
    RunSpec& spec = config_.spec;
    spec.name = "run";
    spec.step_rows = (kind & 1) != 0 ? 0 : 8;
    spec.batch_rows = 4;
    spec.contribution_rows = (kind & 1) != 0 ? 4 : 8;
    spec.staleness_max = (kind & 2) != 0 ? kStalenessUnbounded : (kind >> 2) & 1;
    spec.clip_norm = (kind & 8) != 0 ? 1 : 0;
    spec.skips_max = (kind & 16) != 0 ? 2 : 1000;
    spec.checkpoint_versions = (kind & 32) != 0 ? 3 : 0;
    spec.reduction = (kind & 64) != 0 ? Reduction::kSum : Reduction::kMean;
    spec.durability = (kind & 24) == 24 ? Durability::kCheckpoint : Durability::kLog;
    spec.lease_ms = 5000;
    spec.linger_ms = 500;
    config_.shards = 1 + (kind >> 7);
    config_.incarnation = 0;
    incarnations_.assign(config_.shards, 1);
    Restart();
  }

  void Run() {
    Prepare();
    for (int n = 0; n < kInputsMax && !in_.empty(); ++n) {
      now_ms_ += static_cast<int64_t>(in_.Below(3)) * 50;
      OneInput();
      Drain();
      CheckCounters();
    }
  }

 private:
  // ---- inputs
  // Shards are there, the initial weights are set, epoch 1 is open: else few inputs get that far.
  void Prepare() {
    for (uint32_t s = 0; s < config_.shards; ++s) Position(s, /*honest=*/true);
    const auto opened = coordinator_->OpenSession("init", 0, now_ms_);
    FUZZ_CHECK(opened.ok());
    const Batch init{kInitBatch, 1, 0};
    coordinator_->OnClaim(opened->session, init, std::nullopt, now_ms_);
    Drain();
    Submit(opened->session, {init});
    coordinator_->OnStatus(opened->session, true, 0, now_ms_);
    MakeDurable();
    coordinator_->OnSessionLeft(opened->session, now_ms_);
    coordinator_->BeginEpoch(1, EpochRecord{1, 4, 4, "", false, {}}, now_ms_);
    MakeDurable();
    CheckCounters();
  }

  void OneInput() {
    switch (in_.Below(24)) {
      case 0: {
        const auto opened = coordinator_->OpenSession("worker", in_.Bool() ? 0 : AnySession(), now_ms_);
        if (opened.ok()) sessions_.push_back(opened->session);
        if (!opened.ok()) fuzz::CheckRefusal(opened.status());
        break;
      }
      case 1:
      case 2:
      case 3: {
        const SessionId session = AnySession();
        coordinator_->OnClaim(session, in_.Byte() % 8 == 7 ? AnyBatch() : PlainBatch(), AnyUid(session), now_ms_);
        break;
      }
      case 4:
      case 5:
      case 6:
        SubmitHeld();
        break;
      case 7:
        coordinator_->OnSubmit(AnySession(), AnySubmission(), now_ms_);
        break;
      case 8: {
        const SessionId session = AnySession();
        coordinator_->OnSkip(session, SkippableBatch(session), in_.Text(20), now_ms_);
        break;
      }
      case 9:
        coordinator_->OnStatus(AnySession(), in_.Bool(), in_.U64(), now_ms_);
        break;
      case 10:
        coordinator_->OnSessionLost(AnySession(), now_ms_);
        break;
      case 11:
        coordinator_->OnSessionLeft(AnySession(), now_ms_);
        break;
      case 12:
        if (in_.Bool()) {
          Position(static_cast<uint32_t>(in_.Below(config_.shards)), in_.Bool());
        } else {
          coordinator_->OnShardLost(in_.U32(), now_ms_);
        }
        break;
      case 13:
        coordinator_->OnAccepted(in_.U32(), in_.U64(), in_.Bool() ? config_.incarnation : in_.U64(), now_ms_);
        break;
      case 14:
        coordinator_->OnApplied(in_.U32(), in_.U64(), now_ms_);
        break;
      case 15:
        coordinator_->OnNorm(in_.U32(), in_.U64(), in_.Double(), now_ms_);
        break;
      case 16:
        coordinator_->OnCheckpointed(in_.U32(), in_.U64(), {in_.U32(), in_.U64(), in_.U64(), in_.U64()}, 1, now_ms_);
        break;
      case 17:
        coordinator_->OnDisk(in_.U32(), in_.Bool(), "full", now_ms_);
        break;
      case 18:
        MakeDurable();
        break;
      case 19:
        MakeSomeDurable();
        break;
      case 20:
        Request();
        break;
      case 21:
        now_ms_ += static_cast<int64_t>(in_.Below(8)) * 1000;
        coordinator_->OnTick(now_ms_);
        break;
      case 22:
        OpenFeed();
        break;
      default:
        if (in_.Byte() % 4 == 0) Restart();
    }
  }

  void Request() {
    switch (in_.Below(6)) {
      case 0: {
        const EpochRecord epoch{in_.U32(), in_.Bool() ? 4 : in_.U32(), in_.Bool() ? 4 : in_.U64(), in_.Byte() == 255 ? "x" : "", in_.Bool(),
                                {}};
        coordinator_->BeginEpoch(2, epoch, now_ms_);
        break;
      }
      case 1:
      case 2: {
        std::vector<Coordinator::PartitionCount> counts;
        for (uint64_t n = in_.Below(6); n > 0; --n) counts.push_back({in_.U32(), in_.U64(), in_.U64()});
        coordinator_->CommitEpoch(3, in_.U32(), counts, now_ms_);
        break;
      }
      case 3:
        CommitHonestly(1 + static_cast<uint32_t>(in_.Below(3)));
        break;
      case 4:
        coordinator_->RequestCheckpoint(4, now_ms_);
        break;
      default:
        if (in_.Byte() % 8 == 0) return coordinator_->Stop("by request", now_ms_);
        coordinator_->Rollback(6, AnyManifest(), now_ms_);
    }
  }

  // What a driver counts whose data is just what is decided.
  void CommitHonestly(uint32_t epoch) {
    std::map<uint32_t, Coordinator::PartitionCount> counts;
    for (const auto& [id, decided] : record_.decided()) {
      if (id.epoch != epoch) continue;
      Coordinator::PartitionCount& c = counts[id.partition];
      c.partition = id.partition;
      c.batches = std::max(c.batches, id.seq + 1);
      c.rows += decided.rows;
    }
    std::vector<Coordinator::PartitionCount> list;
    for (const auto& [partition, count] : counts) list.push_back(count);
    coordinator_->CommitEpoch(5, epoch, list, now_ms_);
  }

  void OpenFeed() {
    const uint32_t epoch = in_.U32(), partition = in_.U32();
    const auto feed = coordinator_->OpenFeed(epoch, partition);
    if (!feed.ok()) return fuzz::CheckRefusal(feed.status());
    if (feed->committed) {
      FUZZ_CHECK(record_.Committed(epoch));
      return;
    }
    for (uint64_t seq = 0; seq < feed->trained_below; ++seq) record_.CheckDurable({epoch, partition, seq});
    for (const SeqRange& range : feed->trained) {
      for (uint64_t i = 0; i < range.count; ++i) record_.CheckDurable({epoch, partition, range.first + i});
    }
  }

  // ---- values
  SessionId AnySession() {
    if (sessions_.empty() || in_.Byte() % 16 == 15) return in_.U64();
    return sessions_[in_.Below(sessions_.size())];
  }
  uint64_t AnyManifest() {
    const std::vector<Manifest>& kept = record_.manifests();
    return kept.empty() || in_.Byte() % 8 == 7 ? in_.U64() : kept[in_.Below(kept.size())].version;
  }
  Batch PlainBatch() {
    const BatchId id{1 + static_cast<uint32_t>(in_.Below(8) == 7), static_cast<uint32_t>(in_.Below(4)), in_.Below(6)};
    return {id, static_cast<uint32_t>(1 + (id.seq + id.partition) % 4), 100 + id.seq};
  }
  Batch AnyBatch() { return {{in_.U32(), in_.Bool() ? kInitPartition : in_.U32(), in_.U64()}, in_.U32(), in_.U64()}; }
  Batch SkippableBatch(SessionId session) {
    const auto held = held_.find(session);
    if (held == held_.end() || held->second.empty() || in_.Byte() % 4 == 0) return in_.Bool() ? PlainBatch() : AnyBatch();
    Batch batch = held->second[in_.Below(held->second.size())];
    if (in_.Byte() % 4 == 0) batch.rows = in_.U32();  // a lie
    if (batch.id == kInitBatch) return PlainBatch();
    return batch;
  }
  std::optional<Uid> AnyUid(SessionId session) {
    const uint8_t kind = in_.Byte();
    if (kind < 200) return std::nullopt;
    return kind < 240 ? Uid{session, in_.Below(4)} : Uid{in_.U64(), in_.U64()};
  }
  Submission AnySubmission() {
    Submission s;
    s.uid = {in_.Bool() ? AnySession() : in_.U64(), in_.U64()};
    for (uint64_t n = in_.Below(4); n > 0; --n) s.batches.push_back(in_.Bool() ? PlainBatch() : AnyBatch());
    s.rows = in_.U64();
    s.base_version = in_.U64();
    for (uint64_t n = in_.Below(4); n > 0; --n) s.receipts.push_back({in_.U32(), in_.U64(), in_.U64(), in_.Double(), in_.U64()});
    s.loss_sum = in_.Double();
    s.residual_norm = in_.Double();
    for (uint64_t n = in_.Below(4); n > 0; --n) s.timing.push_back({in_.Text(80), in_.Double()});
    return s;
  }

  // ---- honest parts
  void Submit(SessionId session, const std::vector<Batch>& batches) {
    Submission s;
    s.uid = {session, ++counter_};
    s.batches = batches;
    for (const Batch& b : batches) s.rows += b.rows;
    s.base_version = record_.Durable().version;
    s.loss_sum = in_.Byte() % 16 == 15 ? in_.Double() : 1;
    for (uint32_t shard = 0; shard < config_.shards; ++shard) {
      Receipt receipt{shard, incarnations_[shard], 1, 1};
      receipt.proof = ReceiptProof(incarnations_[shard], s.uid, receipt);
      s.receipts.push_back(receipt);
    }
    coordinator_->OnOwnLog(s.uid);
    coordinator_->OnSubmit(session, std::move(s), now_ms_);
    Drain();
  }
  void SubmitHeld() {
    const SessionId session = AnySession();
    const auto held = held_.find(session);
    if (held == held_.end()) return;
    std::vector<Batch> batches;
    std::swap(batches, held->second);
    if (!batches.empty()) Submit(session, batches);
  }
  void Position(uint32_t shard, bool honest) {
    if (!honest && in_.Byte() % 8 == 7) ++incarnations_[shard];
    ShardPosition p = record_.Durable();
    p.shard = shard;
    p.incarnation = p.receipt_key = incarnations_[shard];
    const uint8_t lie = honest ? 0 : in_.Byte();
    if (lie == 255) p.index = in_.U64();
    if (lie == 254) p.chain = in_.U64();
    if (lie % 16 == 13) p.version = in_.U64();
    for (uint64_t n = honest ? 0 : in_.Below(3); n > 0; --n) p.undecided.push_back({in_.U64(), in_.U64()});
    coordinator_->OnShardPosition(p, now_ms_);
    Drain();
  }
  // Everything that disk and shards owe.
  void MakeDurable() {
    for (int round = 0; round < 8; ++round) {
      const uint64_t durable = SyncLog(~uint64_t{0} >> 1);
      bool stored = false;
      while (StoreNext()) stored = true;
      for (uint32_t s = 0; s < config_.shards; ++s) {
        coordinator_->OnAccepted(s, durable, config_.incarnation, now_ms_);
        coordinator_->OnApplied(s, durable, now_ms_);
        if (const auto cut = record_.cut(); cut.has_value()) coordinator_->OnCheckpointed(s, *cut, {s, 1, 1, 0}, 1, now_ms_);
        Drain();
      }
      if (!stored && SyncLog(0) == SyncLog(1)) return;
    }
  }
  // So that a crash finds the disk between any two of them.
  void MakeSomeDurable() {
    SyncLog(in_.Below(4));
    for (uint64_t n = in_.Below(6); n > 0; --n) StoreNext();
  }
  uint64_t SyncLog(uint64_t decisions) {
    const uint64_t durable = record_.SyncLog(decisions);
    coordinator_->OnDecisionDurable(durable, now_ms_);
    Drain();
    return durable;
  }
  bool StoreNext() {
    fuzz::CoordinatorRecord::Stored stored;
    if (!record_.StoreNext(&stored)) return false;
    if (stored.manifest) coordinator_->OnManifestDurable(*stored.manifest, now_ms_);
    if (stored.epoch) coordinator_->OnEpochDurable(*stored.epoch, now_ms_);
    Drain();
    return true;
  }

  void Restart() {
    ++config_.incarnation;
    ++incarnations_[0];
    record_.Crash();
    held_.clear();
    auto restored = Coordinator::Restore(config_, record_.OnDisk(in_.Below(8)), now_ms_);
    if (!restored.ok()) std::fprintf(stderr, "%s\n", restored.status().ToString().c_str());
    FUZZ_CHECK(restored.ok());
    coordinator_ = *std::move(restored);
    Drain();
    while (sessions_.size() > 8) sessions_.erase(sessions_.begin());  // some may resume
  }

  // ---- outputs
  void Drain() {
    const std::vector<Output> outputs = coordinator_->TakeOutputs();
    FUZZ_CHECK(outputs.size() <= kOutputsMax);
    for (const Output& output : outputs) {
      record_.Take(output);
      if (const auto* to = std::get_if<ToSession>(&output)) Hold(*to);
    }
  }

  void Hold(const ToSession& to) {
    if (const auto* grant = std::get_if<Grant>(&to.message)) held_[to.session].push_back(grant->batch);
    const auto* refuse = std::get_if<Refuse>(&to.message);
    const bool fenced = refuse != nullptr && refuse->reason == Refuse::Reason::kFenced;
    if (fenced || std::holds_alternative<CloseSession>(to.message)) held_.erase(to.session);
  }

  void CheckCounters() { record_.CheckStatus(coordinator_->Describe()); }

  fuzz::Input& in_;
  CoordinatorConfig config_;
  std::unique_ptr<Coordinator> coordinator_;
  int64_t now_ms_ = 1000;
  uint64_t counter_ = 100;
  std::vector<uint64_t> incarnations_;  // of the shards
  std::vector<SessionId> sessions_;
  std::map<SessionId, std::vector<Batch>> held_;
  fuzz::CoordinatorRecord record_{config_};
};

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ballast::fuzz::Input in(data, size);
  ballast::Fuzzer(in).Run();
  return 0;
}
