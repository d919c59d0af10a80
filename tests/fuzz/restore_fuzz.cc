// Coordinator::Restore from what a disk may hold after anything: manifests, epochs and decisions with any numbers in them, with good chains
// or without. It refuses with DataLoss, or it serves.
#include "core/coordinator/coordinator.h"
#include "core/coordinator/ledger.h"
#include "core/record/decision.h"
#include "tests/fuzz/input.h"

namespace ballast {
namespace {

constexpr int kItemsMax = 16;

Batch AnyBatch(fuzz::Input& in) { return {{in.U32(), in.U32(), in.U64()}, in.U32(), in.U64()}; }

std::shared_ptr<const Decision> AnyDecision(fuzz::Input& in, uint64_t& index, uint64_t& chain, uint64_t& generation) {
  Decision d;
  d.run = in.Byte() % 32 == 31 ? "other" : "run";
  d.index = in.Byte() % 16 == 15 ? in.U64() : ++index;
  d.kind = static_cast<DecisionKind>(1 + in.Below(6));
  d.version = in.Byte() % 16 == 15 ? in.U64() : d.index;
  d.step = in.U64();
  d.sessions_closed_below = in.U64();
  if (d.kind == DecisionKind::kRollback) {
    d.generation = in.Byte() % 8 == 7 ? in.U64() : generation + 1;
    d.rollback_version = in.U64();
  } else {
    d.generation = generation;
  }
  generation = d.generation;
  for (uint64_t n = in.Below(3); n > 0; --n) {
    Part& part = d.parts.emplace_back();
    part.uid = {in.U64(), in.U64()};
    part.rows = in.U64();
    part.loss_sum = in.Double();
    for (uint64_t b = in.Below(3); b > 0; --b) part.batches.push_back(AnyBatch(in));
  }
  for (uint64_t n = in.Below(2); n > 0; --n) d.skipped.push_back({AnyBatch(in), "why"});
  if (in.Byte() % 32 == 31) chain = in.U64();
  SealDecision(chain, d);
  chain = d.chain;
  return std::make_shared<const Decision>(std::move(d));
}

CoordinatorState AnyState(fuzz::Input& in) {
  CoordinatorState state;
  uint64_t index = in.Byte() % 4 == 3 ? in.U64() : 0, chain = 0, generation = 1;
  for (uint64_t n = in.Below(kItemsMax); n > 0; --n) state.decisions.push_back(AnyDecision(in, index, chain, generation));
  for (uint64_t n = in.Below(3); n > 0; --n) {
    Manifest m;
    m.run = "run";
    m.version = in.U64();
    m.index = in.U64();
    m.step = in.U64();
    m.loss = in.Double();
    m.healthy = in.Bool();
    if (in.Byte() % 4 == 3) m.rolled_back_to = in.U64();
    if (in.Byte() % 4 == 3) m.generation = in.U64();
    m.chain = in.U64();
    if (m.index > 0 && m.index <= state.decisions.size() && in.Bool()) m.chain = state.decisions[m.index - 1]->chain;
    Ledger ledger;
    for (uint64_t b = in.Below(4); b > 0; --b) ledger.Add(AnyBatch(in), in.Bool());
    m.ledger = in.Byte() % 8 == 7 ? in.Text(40) : ledger.Snapshot();
    state.manifests.push_back(std::move(m));
  }
  for (uint64_t n = in.Below(4); n > 0; --n) {
    EpochRecord epoch;
    epoch.epoch = in.U32();
    epoch.partitions = in.U32();
    epoch.batch_rows = in.U64();
    epoch.committed = in.Bool();
    epoch.report.epoch = in.U32();
    state.epochs.push_back(epoch);
  }
  return state;
}

void Serve(fuzz::Input& in, Coordinator& coordinator, const CoordinatorState& state) {
  const Decision* last = state.decisions.empty() ? nullptr : state.decisions.back().get();
  int64_t now = 1000;
  ShardPosition position;
  if (last != nullptr) {
    position.index = last->index;
    position.version = last->version;
    position.chain = last->chain;
  }
  position.incarnation = 1;
  coordinator.OnShardPosition(position, now);
  const auto opened = coordinator.OpenSession("worker", in.U64(), now);
  for (int n = 0; n < 32 && !in.empty() && opened.ok(); ++n) {
    const Batch batch = AnyBatch(in);
    coordinator.OnClaim(opened->session, batch, std::nullopt, now += 50);
    (void)coordinator.OpenFeed(batch.id.epoch, batch.id.partition);
    coordinator.CommitEpoch(1, batch.id.epoch, {{batch.id.partition, in.U64(), in.U64()}}, now);
    coordinator.OnAccepted(0, in.U64(), 1, now);
    coordinator.OnApplied(0, in.U64(), now);
    coordinator.RequestCheckpoint(2, now);
    coordinator.Rollback(3, in.U64(), now);
    coordinator.OnTick(now);
    (void)coordinator.TakeOutputs();
  }
  (void)coordinator.Describe();
}

void Run(fuzz::Input& in) {
  CoordinatorConfig config;
  config.spec.name = "run";
  config.spec.step_rows = in.Bool() ? 8 : 0;
  config.spec.batch_rows = 4;
  config.spec.contribution_rows = 4;
  const CoordinatorState state = AnyState(in);
  auto coordinator = Coordinator::Restore(config, state, 0);
  if (coordinator.ok()) return Serve(in, **coordinator, state);
  fuzz::CheckRefusal(coordinator.status());
  FUZZ_CHECK(absl::IsDataLoss(coordinator.status()));
}

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ballast::fuzz::Input in(data, size);
  ballast::Run(in);
  return 0;
}
