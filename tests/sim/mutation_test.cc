// Each rule of core/coordinator/rules.h is needed: without it a named scenario fails, or some world breaks a promise, or both. Prints the
// first seed that shows it. The table in README.md says which rule of the protocol each one is.
#include <gtest/gtest.h>

#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/coordinator/rules.h"
#include "tests/sim/world.h"

namespace ballast::sim {
namespace {

constexpr uint64_t kSeedsMax = 20000;

struct Case {
  const char* mutation;
  const char* scenario;  // that fails; empty: none does
  const char* breaks;    // part of the promise that a world breaks; null: none does, the worlds lack what it guards against
};
const Case kCases[] = {
    {"no-fence-check", "Protocol.LeaseExpiryNeverTrainsTwice", "is decided twice"},
    {"no-withdraw", "Protocol.LeaseExpiryNeverTrainsTwice", "is decided twice"},
    {"part-of-a-uid", "", "rows"},
    {"no-ledger-check", "Protocol.TwinDoesNotHoldTheStep", "is decided twice"},
    {"any-uid", "Protocol.RecomputedBatchNeverSharesAUid", nullptr},
    {"no-stale-check", "Protocol.StalenessNeverExceedsTheBound", "with a contribution of version"},
    {"no-lag-delay", "Protocol.StalenessNeverExceedsTheBound", "with a contribution of version"},
    {"some-receipts", "Protocol.BytesThatAShardLostArePushedAgain", nullptr},
    {"old-receipts", "Protocol.BytesThatAShardLostArePushedAgain", nullptr},
    {"no-kept-receipts", "Protocol.BytesThatAShardLostArePushedAgain", nullptr},
    {"no-own-log-check", "Protocol.ReceiptFromBeforeTheCrashIsRefused", "is not durable on shard 0"},
    {"early-receipt", "", "is not durable on shard"},
    {"resume-anything", "Protocol.RestartedCoordinatorResumesWithoutRecompute", nullptr},
    {"init-again", "Protocol.InitialWeightsAreSetOnce", "is decided twice"},
    {"no-session-garbage", "Protocol.DeadWorkerLeavesTheStepAndFreesItsBytes", nullptr},
    {"holds-anything", "Protocol.TwinDoesNotHoldTheStep", "nothing moves any more"},
    {"endless-step", "Protocol.StepHoldsTheNextRowsWhereverTheyAreComputed", "rows"},
    {"close-at-first-submit", "Protocol.ALoneSessionFillsTheStepWithTwoContributions", nullptr},
    {"no-round-robin", "Protocol.ALongQueueDoesNotTakeTheWholeStep", nullptr},
    {"no-linger", "Protocol.LingerEndsTheWaitForASlowSource", nullptr},
    {"never-flush", "Protocol.AccumulationNeverOutwaitsTheWindow", ""},  // dead ends, or sessions that lose one lease after another
    {"no-answer-at-decision", "Protocol.TwinDoesNotHoldTheStep", "nothing moves any more"},
    {"heartbeat-is-progress", "Protocol.HeartbeatWithoutProgressLosesTheLease", nullptr},
    {"no-quarantine", "Protocol.BatchThatKillsWorkersIsQuarantined", "moves in circles"},
    {"endless-skips", "Protocol.SkipsInARowStopTheRun", nullptr},
    {"decide-ahead", "Protocol.DecisionsWaitForTheSlowestShard", nullptr},
    {"no-quota", "Protocol.FullQuotaRefusesSessionsNeverBlocks", nullptr},
    {"ignore-disk", "Protocol.DiskLowParksClaimsUntilThereIsRoom", nullptr},
    {"uid-order", "Protocol.SumFollowsTheOrderOfTheDecision", nullptr},
    {"fixed-divisor", "Protocol.TailBatchWeighsOnlyItsRows", nullptr},
    {"every-decision-is-a-step", "Protocol.GroupCommitMergesSyncsNotSteps", nullptr},
    {"checkpoint-ages", "Protocol.CheckpointDoesNotAgeAGrant", "with a contribution of version"},
    {"part-of-the-norm", "Protocol.ReplayTakesTheClipScaleFromTheLog", nullptr},
    {"ack-at-decision", "Protocol.ZombieCoordinatorNeverAcknowledges", "never accepted decision"},
    {"ack-of-a-zombie", "Protocol.ZombieCoordinatorNeverAcknowledges", nullptr},
    {"ack-unheard", "Checkpoints.NothingOfAManifestIsAcknowledgedBeforeEveryServerWasHeard", nullptr},
    {"feed-trusts-marks", "Protocol.NothingIsAcknowledgedBeforeEveryShardWasHeard", "never accepted decision"},
    {"no-replay", "Protocol.RestartedShardReplaysWhatItMissed", "too early"},
    {"older-history", "Protocol.ShardAheadOfTheCoordinatorStopsTheRun", nullptr},
    {"no-fingerprint-check", "Protocol.DuplicateWithOtherContentIsReported", nullptr},
    {"no-committed-marker", "Epochs.LateFeedOfACommittedEpochIsNeverTrained", "nothing moves any more"},
    {"part-of-a-manifest", "Checkpoints.AManifestNeedsTheDigestOfEveryServer", "has no checkpoint of manifest"},
    {"manifest-before-its-cut", "Checkpoints.AManifestWaitsForItsCutOnDisk", "which is not durable"},
    {"manifest-without-ledger", "Checkpoints.ManifestCoversExactlyTheDecisionsBeforeIt", "batches are missing"},
    {"no-replayed-marks", "Checkpoints.ManifestCoversExactlyTheDecisionsBeforeIt", "batches are missing"},
    {"cut-below-newest", "Checkpoints.TheLogIsCutBelowTheSecondNewestManifest", nullptr},
    {"restore-dropped", "Protocol.RollbackGoesOnlyToWhatEveryServerKeeps", nullptr},
    {"drop-healthy", "Checkpoints.NewestHealthyManifestIsNeverDropped", nullptr},
    {"commit-uncovered", "Epochs.ACheckpointThatBeganBeforeTheLastBatchDoesNotCoverIt", "is in no manifest"},
    {"marks-stay", "Protocol.LedgerRollsBackWithTheWeights", "not durably decided"},
    {"no-rollback-fence", "Protocol.ContributionOfTheOldGenerationNeverCounts", nullptr},
    {"grant-uncovered", "Protocol.NothingIsGrantedBeforeTheRollbackIsCovered", nullptr},
    {"crash-keeps-steps", "DurabilityCheckpoint.CrashOfAShardIsARollbackToTheNewestManifest", "nothing moves any more"},
};

// Whether the named scenario passes, run by itself: without its rule it may crash as well.
bool ScenarioHolds(const std::string& scenario, const std::string& arguments) {
  const std::string command = absl::StrCat("tests/sim/scenarios --gtest_filter=", scenario, " ", arguments, " >/dev/null 2>&1");
  const int status = std::system(command.c_str());
  EXPECT_TRUE(!WIFEXITED(status) || WEXITSTATUS(status) != 127) << "cannot run " << command;
  return status == 0;
}

class Mutations : public testing::TestWithParam<Case> {};

TEST_P(Mutations, MakesItsScenarioFail) {
  const Case& c = GetParam();
  if (c.scenario[0] == '\0') return;
  EXPECT_TRUE(ScenarioHolds(c.scenario, "")) << c.scenario << " fails with every rule in place";
  EXPECT_FALSE(ScenarioHolds(c.scenario, absl::StrCat("--mutate ", c.mutation))) << c.scenario << " does not notice";
}

TEST_P(Mutations, BreaksAPromise) {
  const Case& c = GetParam();
  ASSERT_TRUE(c.scenario[0] != '\0' || c.breaks != nullptr) << "nothing shows it";
  if (c.breaks == nullptr) return;
  for (uint64_t seed = 1; seed <= kSeedsMax; ++seed) {
    Scenario scenario = RandomScenario(seed);
    scenario.mutation = c.mutation;
    World world(scenario);
    const std::string violation = world.Run();
    if (violation.empty() || violation.find(c.breaks) == std::string::npos) continue;
    std::printf("%s: %s\n  %s\n", c.mutation, violation.c_str(), Describe(scenario).c_str());
    scenario.mutation.clear();
    World sound(scenario);
    EXPECT_EQ(sound.Run(), "") << "with every rule the same world must hold";
    return;
  }
  FAIL() << c.mutation << " was not noticed in " << kSeedsMax << " worlds";
}
INSTANTIATE_TEST_SUITE_P(Rules, Mutations, testing::ValuesIn(kCases), [](const auto& info) {
  std::string name = info.param.mutation;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(Mutations, EveryRuleHasItsCase) {
  for (const Mutation& mutation : kMutations) {
    EXPECT_EQ(std::count_if(std::begin(kCases), std::end(kCases), [&](const Case& c) { return mutation.name == c.mutation; }), 1)
        << mutation.name;
  }
}

}  // namespace
}  // namespace ballast::sim
