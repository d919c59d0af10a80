// SessionCore with everything around it in memory: the test plays coordinator, shards, compute thread and tasks.
#include "worker/session/session_core.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/codec/codec.h"
#include "core/layout/layout.h"

namespace ballast {
namespace {

class Task final : public FeedOutlet {
 public:
  void Welcome(std::shared_ptr<const RunSpec>, uint64_t) override {}
  void Credit(uint64_t) override {}
  void Ack(uint64_t seq, Outcome outcome, uint64_t version, const std::string& reason) override {
    acks.push_back(absl::StrCat(seq,
                                outcome == Outcome::kTrained     ? " trained v"
                                : outcome == Outcome::kDuplicate ? " duplicate v"
                                                                 : " skipped v",
                                version, reason.empty() ? "" : " ", reason));
  }
  void Fault(const FeedFault& fault) override { faults.push_back(fault); }
  void Finish() override {}
  std::vector<std::string> acks;
  std::vector<FeedFault> faults;
};

class Params final : public ParamClient {
 public:
  void Push(const std::shared_ptr<Outgoing>&, uint32_t) override {}
  void PushAgain(const std::shared_ptr<Outgoing>& contribution, uint32_t shard) override {
    pushed_again.emplace_back(contribution->uid(), shard);
  }
  void Forget(const Uid& uid) override { forgotten.push_back(uid); }
  void Pull(uint32_t shard, uint64_t min_version, std::shared_ptr<ParameterStore>) override { pulls.emplace_back(shard, min_version); }
  std::vector<std::pair<Uid, uint32_t>> pushed_again;
  std::vector<Uid> forgotten;
  std::vector<std::pair<uint32_t, uint64_t>> pulls;
};

using Strings = std::vector<std::string>;

std::string Name(const Batch& batch) { return batch.id == kInitBatch ? "init" : absl::StrCat("b", batch.id.seq); }

class SessionCoreTest : public testing::Test, public SessionPorts {
 protected:
  static constexpr uint64_t kSession = 77;

  void Make(uint32_t shards, uint64_t step_rows, uint64_t contribution_rows) {
    auto spec = std::make_shared<RunSpec>();
    spec->name = "run";
    spec->schema = "x:int64";
    spec->step_rows = step_rows;
    spec->batch_rows = 4;
    spec->contribution_rows = contribution_rows;
    spec->push_codec = Codec::kInt8;
    TensorSpec tensor;
    tensor.name = "w";
    tensor.shape = {600};
    spec->tensors = {tensor};
    Layout layout = *MakeLayout(spec->tensors, shards);
    residuals_ = std::make_unique<Residuals>(*spec, layout);
    core_ = std::make_unique<SessionCore>(SessionCore::Config{spec, layout, shards}, this, &queue_, &params_, residuals_.get(), nullptr);
    queue_.Serve(spec);
    feed_ = queue_.Open(&task_, 1, 0, absl::UnixEpoch());
    shards_ = shards;
    first_block_ = layout.front();
  }

  // ---- SessionPorts
  void Claim(const Batch& batch, std::optional<Uid> uid) override {
    said.push_back(absl::StrCat("claim ", Name(batch), uid ? absl::StrCat(" #", uid->counter) : ""));
  }
  void Submit(const Submission& submission) override {
    said.push_back(absl::StrCat("submit #", submission.uid.counter, " rows ", submission.rows, " base ", submission.base_version));
    submitted.push_back(submission);
  }
  void Skip(const Batch& batch, const std::string& reason) override { said.push_back(absl::StrCat("skip ", Name(batch), " ", reason)); }
  void Status(bool blocked, uint64_t) override { blocked_ = blocked; }
  void Reopen(uint64_t resume, bool leave) override { said.push_back(absl::StrCat("reopen ", resume, leave ? " leave" : "")); }
  void Ended(const std::string& reason) override { said.push_back(absl::StrCat("ended ", reason)); }
  void Compute(ComputeJob job) override {
    ASSERT_FALSE(job_.has_value()) << "one job at a time";
    job_ = std::move(job);
  }
  absl::Time Now() override { return now_ += absl::Milliseconds(1); }

  // ---- the others
  void Rows(uint64_t seq, uint32_t rows = 4) {
    RowBatch batch;
    batch.batch = B(seq, rows);
    batch.columns.emplace_back("x", std::string(rows * 8, '\0'));
    queue_.Add(feed_, std::move(batch));
    core_->OnQueueChanged();
  }
  static Batch B(uint64_t seq, uint32_t rows = 4) { return {{1, 0, seq}, rows, 1000 + seq}; }
  void Grant(uint64_t seq, uint64_t step, uint64_t base, std::optional<Uid> uid = std::nullopt, uint32_t rows = 4) {
    core_->OnMessage(ballast::Grant{B(seq, rows), step, base, uid});
  }
  void Flush(uint64_t step) { core_->OnMessage(ballast::Flush{step}); }
  void Pulled(uint64_t version) {
    for (const auto& [shard, min] : std::exchange(params_.pulls, {})) core_->OnPulled(shard, version);
  }
  // What the compute thread would do with the job; the residual is touched as the encoder would.
  void Computed(ComputeResult result = {}) {
    ASSERT_TRUE(job_.has_value());
    const ComputeJob job = *std::exchange(job_, std::nullopt);
    if (job.finish != nullptr && !job.initial) {
      if (!result.given_up) Encode(job.finish->uid());
    }
    result.loss_sum = 2;
    core_->OnComputed(result);
  }
  void Encode(const Uid& uid) {
    residuals_->Begin(uid);
    std::vector<float> gradient(first_block_.count, 0.3f);
    gradient[0] = 100;
    std::vector<char> bytes(EncodedBytes(Codec::kInt8, first_block_.count));
    residuals_->Encode(0, gradient, absl::MakeSpan(bytes));
  }
  void Receipts(uint64_t counter, uint64_t incarnation = 1, uint64_t session = kSession) {
    for (uint32_t shard = 0; shard < shards_; ++shard) Receipt(counter, shard, incarnation, session);
  }
  void Receipt(uint64_t counter, uint32_t shard, uint64_t incarnation = 1, uint64_t session = kSession) {
    PushReply reply;
    reply.run = "run";
    reply.session = session;
    reply.uid = counter;
    reply.shard = shard;
    reply.incarnation = incarnation;
    core_->OnPushReply(reply);
  }
  void Decided(uint64_t counter, uint64_t version, std::vector<Batch> batches) {
    core_->OnMessage(ballast::Decided{{kSession, counter}, version, std::move(batches)});
  }
  Strings Said() { return std::exchange(said, {}); }

  // One step with one batch: claimed, granted, computed, submitted.
  void SubmitOne(uint64_t seq, uint64_t step, uint64_t base, uint64_t counter) {
    Rows(seq);
    Grant(seq, step, base);
    Flush(step);
    Pulled(base);
    Computed();
    Receipts(counter);
  }

  Strings said;
  std::vector<Submission> submitted;
  bool blocked_ = false;
  absl::Time now_ = absl::UnixEpoch();
  std::optional<ComputeJob> job_;
  FeedQueue queue_{"run", 1 << 20};
  Task task_;
  FeedQueue::FeedId feed_ = 0;
  Params params_;
  uint32_t shards_ = 1;
  Block first_block_;
  std::unique_ptr<Residuals> residuals_;
  std::unique_ptr<SessionCore> core_;
};

TEST_F(SessionCoreTest, ABatchIsClaimedTrainedPushedSubmittedAndAcknowledged) {
  Make(2, 8, 8);
  core_->OnWelcome(kSession, false, 1);
  Rows(0);
  Rows(1);
  EXPECT_EQ(Said(), (Strings{"claim b0", "claim b1"}));
  Grant(0, 1, 1);
  EXPECT_EQ(params_.pulls, (std::vector<std::pair<uint32_t, uint64_t>>{{0, 1}, {1, 1}}));
  Grant(1, 1, 1);
  Pulled(1);
  ASSERT_TRUE(job_.has_value());
  EXPECT_NE(job_->begin, nullptr);
  EXPECT_EQ(job_->finish, nullptr);
  Computed();
  ASSERT_TRUE(job_.has_value());
  EXPECT_EQ(job_->begin, nullptr);
  EXPECT_NE(job_->finish, nullptr) << "the contribution is full: the last batch is known without a Flush";
  Computed();
  EXPECT_EQ(params_.pulls, (std::vector<std::pair<uint32_t, uint64_t>>{{0, 2}, {1, 2}})) << "the next values are asked for at once";
  Receipt(1, 0);
  EXPECT_TRUE(Said().empty()) << "every shard must hold it first";
  Receipt(1, 1);
  EXPECT_EQ(Said(), Strings{"submit #1 rows 8 base 1"});
  EXPECT_EQ(submitted[0].loss_sum, 4);
  EXPECT_TRUE(task_.acks.empty());
  Decided(1, 2, {B(0), B(1)});
  EXPECT_EQ(task_.acks, (Strings{"0 trained v2", "1 trained v2"}));
  EXPECT_EQ(core_->in_flight(), 0u);
}

TEST_F(SessionCoreTest, ClaimsThatWaitAreBoundedAndTheRestStaysInTheQueue) {
  constexpr uint64_t kMost = 4096, kBatches = 5000;
  Make(1, 4 * kBatches, 4 * kBatches);
  core_->OnWelcome(kSession, false, 1);
  for (uint64_t seq = 0; seq < kBatches; ++seq) Rows(seq);
  EXPECT_TRUE(task_.faults.empty());
  const Strings claims = Said();
  EXPECT_EQ(claims.size(), kMost);
  EXPECT_EQ(claims.back(), absl::StrCat("claim b", kMost - 1));
  Grant(0, 1, 1);
  EXPECT_EQ(Said(), Strings{absl::StrCat("claim b", kMost)}) << "one was answered: the next one";
}

TEST_F(SessionCoreTest, TailBatchWeighsOnlyItsRows) {
  Make(1, 8, 8);
  core_->OnWelcome(kSession, false, 1);
  Rows(0);
  Rows(1, 3);
  Grant(0, 1, 1);
  Grant(1, 1, 1, std::nullopt, 3);
  Pulled(1);
  Computed();
  Computed();
  EXPECT_EQ(job_.has_value(), false) << "part-full: it waits for more rows or for Flush";
  Flush(1);
  Computed();
  Receipts(1);
  EXPECT_EQ(Said().back(), "submit #1 rows 7 base 1");
}

TEST_F(SessionCoreTest, AFlushOfAClosedContributionDoesNotCloseTheNext) {
  Make(1, 16, 8);
  core_->OnWelcome(kSession, false, 1);
  for (uint64_t seq = 0; seq < 3; ++seq) Rows(seq);
  Grant(0, 1, 1);
  Grant(1, 1, 1);
  Pulled(1);
  Computed();
  Computed();
  Flush(1);  // comes late: contribution_rows closed it
  Receipts(1);
  Grant(2, 1, 1);
  Computed();
  EXPECT_FALSE(job_.has_value());
  Flush(1);
  Computed();
  Receipts(2);
  EXPECT_EQ(Said().back(), "submit #2 rows 4 base 1");
}

TEST_F(SessionCoreTest, TheInitialWeightsAreAClaimLikeAnyOther) {
  Make(2, 8, 8);
  core_->OnWelcome(kSession, false, 0);
  EXPECT_EQ(Said(), Strings{"claim init"});
  core_->OnMessage(ballast::Grant{{kInitBatch, 0, 0}, 1, 0, std::nullopt});
  core_->OnMessage(ballast::Flush{1});
  ASSERT_TRUE(job_.has_value());
  EXPECT_TRUE(job_->initial);
  Computed();
  Receipts(1);
  EXPECT_EQ(Said(), Strings{"submit #1 rows 0 base 0"});
  Decided(1, 1, {{kInitBatch, 0, 0}});
  EXPECT_EQ(core_->in_flight(), 0u);
}

TEST_F(SessionCoreTest, TheNextStepIsComputedWhileTheLastOneCommits) {
  Make(1, 4, 4);
  core_->OnWelcome(kSession, false, 1);
  SubmitOne(0, 1, 1, 1);
  Rows(1);
  Grant(1, 2, 1);  // staleness 1: the values at hand will do
  ASSERT_TRUE(job_.has_value());
  Computed();
  Receipts(2);
  EXPECT_EQ(Said().back(), "submit #2 rows 4 base 1");
}

TEST_F(SessionCoreTest, AContributionCarriesTheOldestVersionItUsed) {
  Make(2, 4, 4);
  core_->OnWelcome(kSession, false, 1);
  Rows(0);
  Grant(0, 1, 3);
  Flush(1);
  core_->OnPulled(0, 5);
  core_->OnPulled(1, 4);
  Computed();
  Receipts(1);
  EXPECT_EQ(Said().back(), "submit #1 rows 4 base 4");
}

TEST_F(SessionCoreTest, AShardThatIsBehindIsAskedAgain) {
  Make(2, 4, 4);
  core_->OnWelcome(kSession, false, 1);
  SubmitOne(0, 1, 1, 1);
  Decided(1, 2, {B(0)});
  core_->OnPulled(0, 2);  // of the pull that was asked for after the step
  core_->OnPulled(1, 3);
  params_.pulls.clear();
  Rows(1);
  Grant(1, 5, 3);
  EXPECT_FALSE(job_.has_value());
  EXPECT_EQ(params_.pulls, (std::vector<std::pair<uint32_t, uint64_t>>{{0, 3}}));
  Pulled(3);
  EXPECT_TRUE(job_.has_value());
}

TEST_F(SessionCoreTest, BadBatchIsSkippedOnTheRecordAndTheRestGoesOn) {
  Make(1, 8, 8);
  core_->OnWelcome(kSession, false, 1);
  Rows(0);
  Rows(1);
  Grant(0, 1, 1);
  Grant(1, 1, 1);
  Flush(1);
  Pulled(1);
  Said();
  ComputeResult bad;
  bad.status = absl::InvalidArgumentError("loss is not finite");
  Computed(bad);
  EXPECT_EQ(Said(), Strings{"skip b0 loss is not finite"});
  Computed();
  Receipts(1);
  EXPECT_EQ(Said(), Strings{"submit #1 rows 4 base 1"});
  core_->OnMessage(SkipLogged{B(0)});
  EXPECT_EQ(task_.acks, Strings{"0 skipped v0 loss is not finite"});
}

TEST_F(SessionCoreTest, ABadLastBatchLeavesTheOthersUnderANewUid) {
  Make(1, 8, 8);
  core_->OnWelcome(kSession, false, 1);
  Rows(0);
  Rows(1);
  Grant(0, 1, 1);
  Grant(1, 1, 1);
  Flush(1);
  Pulled(1);
  Computed();
  Said();
  ComputeResult bad;
  bad.status = absl::InvalidArgumentError("NaN");
  bad.given_up = true;
  Computed(bad);
  ASSERT_TRUE(job_.has_value());
  EXPECT_EQ(job_->batch, nullptr);
  EXPECT_EQ(job_->begin, nullptr);
  Computed();
  Receipts(2);
  EXPECT_EQ(Said(), (Strings{"skip b1 NaN", "submit #2 rows 4 base 1"}));
  EXPECT_EQ(params_.forgotten, std::vector<Uid>{(Uid{kSession, 1})});
}

TEST_F(SessionCoreTest, WhenEveryBatchIsSkippedNothingIsSubmitted) {
  Make(1, 4, 4);
  core_->OnWelcome(kSession, false, 1);
  Rows(0);
  Grant(0, 1, 1);
  Flush(1);
  Pulled(1);
  ComputeResult bad;
  bad.status = absl::InvalidArgumentError("NaN");
  bad.given_up = true;
  Computed(bad);
  EXPECT_EQ(core_->in_flight(), 0u);
  Rows(1);
  Grant(1, 2, 1);
  EXPECT_TRUE(job_.has_value()) << "the next step goes on";
}

TEST_F(SessionCoreTest, AStepWhoseOnlyBatchIsSkippedEarlyHoldsUpNothing) {
  Make(1, 8, 0);
  core_->OnWelcome(kSession, false, 1);
  Rows(0);
  Grant(0, 1, 1);  // and the coordinator waits for more rows: no Flush
  Pulled(1);
  ComputeResult bad;
  bad.status = absl::InvalidArgumentError("NaN");
  Computed(bad);  // with the skip the step is empty: the coordinator drops it, and grants the next batch into another one
  EXPECT_EQ(core_->in_flight(), 0u);
  Rows(1);
  Grant(1, 2, 1);
  ASSERT_TRUE(job_.has_value());
  Computed();
  Flush(2);
  Computed();
  Receipts(2);
  EXPECT_EQ(Said().back(), "submit #2 rows 4 base 1");
}

TEST_F(SessionCoreTest, WhoeverDrainsFinishesWhatIsGrantedAndClaimsNoMore) {
  Make(1, 4, 4);
  core_->OnWelcome(kSession, false, 1);
  Rows(0);
  Grant(0, 1, 1);
  Flush(1);
  Pulled(1);
  core_->Drain();
  Rows(1);
  EXPECT_TRUE(core_->busy());
  Computed();
  Receipts(1);
  EXPECT_EQ(Said(), (Strings{"claim b0", "submit #1 rows 4 base 1"}));
  Decided(1, 2, {B(0)});
  EXPECT_FALSE(core_->busy());
  EXPECT_EQ(task_.acks, Strings{"0 trained v2"});
}

TEST_F(SessionCoreTest, InitialValuesThatAreGivenUpAreNoSkip) {
  Make(1, 4, 4);
  core_->OnWelcome(kSession, false, 0);
  core_->OnMessage(ballast::Grant{{kInitBatch, 0, 0}, 1, 0, std::nullopt});
  Said();
  ComputeResult stopped;
  stopped.status = absl::CancelledError("the worker stops");
  Computed(stopped);
  EXPECT_EQ(Said(), Strings{"reopen 0 leave"}) << "another worker sets them; a skip would end the run";
}

TEST_F(SessionCoreTest, ABatchWithNumbersThatAreNotFiniteAtAShardIsSkipped) {
  Make(1, 4, 4);
  core_->OnWelcome(kSession, false, 1);
  Rows(0);
  Grant(0, 1, 1);
  Flush(1);
  Pulled(1);
  Computed();
  const double norm = residuals_->Norm();
  EXPECT_GT(norm, 0);
  Said();
  PushReply reply;
  reply.session = kSession;
  reply.uid = 1;
  reply.error = "NONFINITE";
  reply.detail = "NONFINITE: scale of group 0";
  core_->OnPushReply(reply);
  EXPECT_EQ(Said(), Strings{"skip b0 server 0: NONFINITE: scale of group 0"});
  EXPECT_EQ(residuals_->Norm(), 0) << "as before the contribution";
  EXPECT_EQ(core_->in_flight(), 0u);
}

TEST_F(SessionCoreTest, AStaleContributionIsComputedAgainFromNewerValuesUnderANewUid) {
  Make(1, 4, 4);
  core_->OnWelcome(kSession, false, 1);
  SubmitOne(0, 1, 1, 1);
  Said();
  core_->OnMessage(Refuse{{kSession, 1}, Refuse::Reason::kStale, {}});
  EXPECT_EQ(residuals_->Norm(), 0);
  Flush(1);
  EXPECT_FALSE(job_.has_value()) << "newer values first";
  Pulled(2);
  Computed();
  Receipts(2);
  EXPECT_EQ(Said(), Strings{"submit #2 rows 4 base 2"});
}

TEST_F(SessionCoreTest, AStaleContributionJoinsTheOneOfItsStepThatIsBeingComputed) {
  Make(1, 8, 8);
  core_->OnWelcome(kSession, false, 1);
  SubmitOne(0, 1, 1, 1);
  core_->OnStreamLost();
  core_->OnWelcome(kSession, true, 4);
  Rows(1);
  Grant(0, 1, 4, Uid{kSession, 1});
  Grant(1, 1, 4);
  Pulled(4);
  core_->OnMessage(Refuse{{kSession, 1}, Refuse::Reason::kStale, {}});
  Flush(1);
  Said();
  Computed();  // b1
  Computed();  // b0
  Receipts(2);
  EXPECT_EQ(Said(), Strings{"submit #2 rows 8 base 4"});
}

TEST_F(SessionCoreTest, AFencedContributionIsClaimedAgainAndItsResidualTakenBack) {
  Make(1, 4, 4);
  core_->OnWelcome(kSession, false, 1);
  SubmitOne(0, 1, 1, 1);
  Said();
  core_->OnMessage(Refuse{{kSession, 1}, Refuse::Reason::kFenced, {}});
  EXPECT_EQ(Said(), Strings{"claim b0"});
  EXPECT_EQ(residuals_->Norm(), 0);
  EXPECT_EQ(core_->in_flight(), 0u);
}

TEST_F(SessionCoreTest, ReceiptsOfAnEarlierIncarnationAreFetchedAgainFromTheNamedShards) {
  Make(2, 4, 4);
  core_->OnWelcome(kSession, false, 1);
  SubmitOne(0, 1, 1, 1);
  Said();
  core_->OnMessage(Refuse{{kSession, 1}, Refuse::Reason::kReceipts, {1}});
  EXPECT_EQ(params_.pushed_again, (std::vector<std::pair<Uid, uint32_t>>{{{kSession, 1}, 1}}));
  EXPECT_TRUE(Said().empty());
  Receipt(1, 1, /*incarnation=*/2);
  EXPECT_EQ(Said(), Strings{"submit #1 rows 4 base 1"});
  EXPECT_EQ(submitted.back().receipts[1].incarnation, 2u);
}

TEST_F(SessionCoreTest, RestartedCoordinatorResumesWithoutRecompute) {
  Make(1, 4, 4);
  core_->OnWelcome(kSession, false, 1);
  SubmitOne(0, 1, 1, 1);
  const double norm = residuals_->Norm();
  Rows(1);
  Said();
  core_->OnStreamLost();
  EXPECT_EQ(Said(), Strings{absl::StrCat("reopen ", kSession)});
  core_->OnWelcome(kSession, true, 1);
  EXPECT_EQ(Said(), (Strings{"claim b0 #1", "claim b1"}));
  Grant(0, 1, 1, Uid{kSession, 1});
  EXPECT_EQ(Said(), Strings{"submit #1 rows 4 base 1"});
  EXPECT_FALSE(job_.has_value());
  EXPECT_EQ(residuals_->Norm(), norm);
}

TEST_F(SessionCoreTest, WhatWasDecidedBeforeTheRestartIsDone) {
  Make(1, 4, 4);
  core_->OnWelcome(kSession, false, 1);
  SubmitOne(0, 1, 1, 1);
  const double norm = residuals_->Norm();
  core_->OnStreamLost();
  core_->OnWelcome(kSession, true, 2);
  core_->OnMessage(Done{B(0), false, false, 0});
  EXPECT_EQ(task_.acks, Strings{"0 duplicate v0"});
  EXPECT_EQ(core_->in_flight(), 0u);
  EXPECT_EQ(residuals_->Norm(), norm) << "its bytes count, and so does what they left behind";
}

TEST_F(SessionCoreTest, AStreamLostWhileComputingKeepsWhatIsComputed) {
  Make(1, 8, 8);
  core_->OnWelcome(kSession, false, 1);
  Rows(0);
  Rows(1);
  Grant(0, 1, 1);
  Grant(1, 1, 1);
  Pulled(1);
  Said();
  core_->OnStreamLost();
  EXPECT_TRUE(Said().empty()) << "the batch in the compute thread comes first";
  Computed();
  ASSERT_TRUE(job_.has_value()) << "what is accumulated is encoded";
  EXPECT_EQ(job_->batch, nullptr);
  Computed();
  EXPECT_EQ(Said(), Strings{absl::StrCat("reopen ", kSession)});
  core_->OnWelcome(kSession, true, 1);
  EXPECT_EQ(Said(), (Strings{"claim b0 #1", "claim b1"}));
}

TEST_F(SessionCoreTest, ANewSessionAfterALostStreamBeginsWithNothing) {
  Make(1, 4, 4);
  core_->OnWelcome(kSession, false, 1);
  SubmitOne(0, 1, 1, 1);
  core_->OnStreamLost();
  Said();
  core_->OnWelcome(kSession + 1, false, 1);
  EXPECT_EQ(Said(), Strings{"claim b0"});
  EXPECT_EQ(residuals_->Norm(), 0);
  EXPECT_EQ(core_->in_flight(), 0u);
}

TEST_F(SessionCoreTest, ALostLeaseWaitsForTheJobThenBeginsAnew) {
  Make(1, 4, 4);
  core_->OnWelcome(kSession, false, 1);
  Rows(0);
  Grant(0, 1, 1);
  Pulled(1);
  Said();
  core_->OnMessage(CloseSession{"no progress", false});
  EXPECT_TRUE(Said().empty());
  Computed();
  EXPECT_EQ(Said(), Strings{"reopen 0"});
  core_->OnWelcome(kSession + 1, false, 1);
  EXPECT_EQ(Said(), Strings{"claim b0"});
}

TEST_F(SessionCoreTest, DuplicateWithOtherContentIsReported) {
  Make(1, 4, 4);
  core_->OnWelcome(kSession, false, 1);
  Rows(0);
  core_->OnMessage(Done{B(0), false, true, 0xabc});
  ASSERT_EQ(task_.faults.size(), 1u);
  EXPECT_EQ(task_.faults[0].reason, "FINGERPRINT_DIFFERS");
  EXPECT_FALSE(task_.faults[0].retry);
  for (const char* word : {"partition 0", "batch 0", "0000000000000abc", "00000000000003e8"}) {
    EXPECT_NE(task_.faults[0].message.find(word), std::string::npos) << task_.faults[0].message;
  }
}

TEST_F(SessionCoreTest, AnUnusableModelSkipsWhatIsGrantedWithTheReason) {
  Make(1, 4, 4);
  core_->OnModelUnusable("the file does not load");
  core_->OnWelcome(kSession, false, 1);
  Rows(0);
  Grant(0, 1, 1);
  EXPECT_EQ(Said(), (Strings{"claim b0", "skip b0 the file does not load"}));
}

TEST_F(SessionCoreTest, AStoppedRunEndsTheSession) {
  Make(1, 4, 4);
  core_->OnWelcome(kSession, false, 1);
  core_->OnMessage(CloseSession{"8 batches in a row could not be trained", true});
  EXPECT_EQ(Said(), Strings{"ended 8 batches in a row could not be trained"});
}

}  // namespace
}  // namespace ballast
