// The table of failpoints: every name that BALLAST_FAILPOINT and BALLAST_FAILPOINT_STATUS take, and only those. Another name does not
// compile; tests/crash/points_test.py checks that every line here is passed somewhere and reads the table for the campaign.
// A verb in the present is before the act ("segment-sync"), one in the past after it ("segment-synced").
// Used by server/failpoint.h, in test builds only.
#ifndef BALLAST_SERVER_FAILPOINT_LIST_H_
#define BALLAST_SERVER_FAILPOINT_LIST_H_

#include <cstddef>
#include <string_view>

namespace ballast {

// When a running server comes by.
enum class Phase {
  kStart,       // once or a few times at each start
  kStep,        // for each contribution, decision or group of log records
  kCheckpoint,  // for each checkpoint, its blocks, and the cut of the log that follows
  kRun,         // when a run is created, opened or removed
  kEpoch,       // when an epoch begins or is committed
  kRollback,    // when a run goes back to a checkpoint
};

struct FailpointLine {
  std::string_view name;
  Phase phase;
  std::string_view at;  // what has happened and what has not
};

inline constexpr FailpointLine kFailpointLines[] = {
    // ---- small files: IDENTITY, INCARNATION, the ready file
    {"dir-make", Phase::kRun, "a directory is missing"},
    {"dir-made", Phase::kRun, "mkdir is done, its parent is not synced"},
    {"dir-sync", Phase::kStart, "before the fsync of a directory"},
    {"dir-synced", Phase::kStart, "after it"},
    {"file-create", Phase::kStart, "before x.new is created or truncated"},
    {"file-write", Phase::kStart, "x.new is empty"},
    {"file-sync", Phase::kStart, "x.new is written, not synced"},
    {"file-rename", Phase::kStart, "x.new is synced, x is the old one"},
    {"file-renamed", Phase::kStart, "x is the new one, the directory is not synced"},
    {"identity-write", Phase::kRun, "the data directory is new and holds LOCK only"},
    {"identity-written", Phase::kRun, "IDENTITY is durable, no life was counted"},
    {"incarnation-grow", Phase::kStart, "before a life is counted"},
    {"incarnation-grown", Phase::kStart, "the life is counted, nothing else of the directory was opened"},
    // ---- segments
    {"segment-create", Phase::kStart, "before a segment's file is made or renamed from a spare"},
    {"spare-rename", Phase::kStart, "a spare is about to become the next segment"},
    {"spare-renamed", Phase::kStart, "the segment has its name and old bytes, nothing is synced"},
    {"segment-preallocate", Phase::kStart, "the file is open, its blocks are not reserved"},
    {"segment-preallocated", Phase::kStart, "blocks are reserved, nothing is synced"},
    {"segment-created", Phase::kStart, "file and directory are synced, no record is in it"},
    {"segment-write", Phase::kStep, "before a group of records is written"},
    {"segment-written", Phase::kStep, "the group is written, not synced"},
    {"segment-sync", Phase::kStep, "before fdatasync"},
    {"segment-synced", Phase::kStep, "after fdatasync, nobody was told"},
    {"segment-trim", Phase::kStart, "before the unwritten end of the last life's segment is cut off"},
    {"segment-trimmed", Phase::kStart, "after it"},
    {"segment-recycle", Phase::kCheckpoint, "a segment below the cut is about to become a spare"},
    {"segment-recycled", Phase::kCheckpoint, "it is a spare, the directory is not synced"},
    {"segment-delete", Phase::kCheckpoint, "there are spares enough: a segment is about to be deleted"},
    {"segment-deleted", Phase::kCheckpoint, "it is deleted, the directory is not synced"},
    // ---- log
    {"log-open", Phase::kStart, "the log was read, nothing of this life is in it"},
    {"log-opened", Phase::kStart, "the RUN record of this life is durable"},
    {"log-write", Phase::kStep, "records are appended in memory, nothing of them is written"},
    {"log-written", Phase::kStep, "records are durable, those who wait for them were not told"},
    {"log-told", Phase::kStep, "those who waited were told"},
    {"log-cut", Phase::kCheckpoint, "before segments below the cut are recycled"},
    {"log-shortened", Phase::kCheckpoint, "after it"},
    // ---- store
    {"store-open", Phase::kStart, "before RocksDB opens"},
    {"store-opened", Phase::kStart, "RocksDB is open"},
    {"bulk-empty", Phase::kStart, "before files of checkpoints that were cut short are deleted"},
    {"bulk-emptied", Phase::kStart, "after it"},
    {"record-put", Phase::kCheckpoint, "before a synced put"},
    {"record-stored", Phase::kCheckpoint, "after it, the caller does not know"},
    {"record-delete", Phase::kCheckpoint, "before a record is deleted"},
    {"record-deleted", Phase::kCheckpoint, "after it"},
    {"prefix-delete", Phase::kCheckpoint, "before a range of records is deleted"},
    {"prefix-marked", Phase::kCheckpoint, "the range is deleted, its files are not dropped"},
    {"prefix-deleted", Phase::kCheckpoint, "after both"},
    {"sst-create", Phase::kCheckpoint, "before the file of a checkpoint is created"},
    {"sst-created", Phase::kCheckpoint, "it is open and empty"},
    {"block-write", Phase::kCheckpoint, "before a block is added to it"},
    {"block-written", Phase::kCheckpoint, "after it"},
    {"sst-finish", Phase::kCheckpoint, "all blocks are in, the file is not finished"},
    {"sst-finished", Phase::kCheckpoint, "the file is finished and synced"},
    {"sst-ingest", Phase::kCheckpoint, "before RocksDB takes the files over"},
    {"sst-ingested", Phase::kCheckpoint, "after it, no meta record names them"},
    // ---- a shard's steps
    {"contribution-append", Phase::kStep, "a chunk was checked, it is not in the log"},
    {"contribution-appended", Phase::kStep, "the chunk is in the log's memory, it is not staged"},
    {"receipt-send", Phase::kStep, "the contribution is in the log (durable on shards other than 0), no receipt is sent"},
    {"receipt-sent", Phase::kStep, "the receipt is on its way"},
    {"decision-append", Phase::kStep, "before a decision enters the log"},
    {"decision-appended", Phase::kStep, "the decision is in the log's memory"},
    {"decision-durable", Phase::kStep, "on shard 0: the decision is durable, the coordinator was not told"},
    {"decision-accept", Phase::kStep, "the decision is held, the coordinator was not told"},
    {"rollback-begin", Phase::kRollback, "a rollback is asked for, nothing has happened"},
    {"rollback-decide", Phase::kRollback, "its sessions are closed, the ROLLBACK decision is not in the log"},
    {"rollback-restore", Phase::kRollback, "a server holds the decision, its values are those of before"},
    {"rollback-restored", Phase::kRollback, "they are the checkpoint's, the version is not published"},
    {"rollback-done", Phase::kRollback, "the manifest after it is durable, nobody was told"},
    {"epoch-drop", Phase::kRollback, "before the record of an undone epoch is deleted"},
    {"epoch-dropped", Phase::kRollback, "after it"},
    {"decision-apply", Phase::kStep, "a decision is held (durable on shard 0), not applied"},
    {"decision-applied", Phase::kStep, "it is applied, its hash root and checkpoint are not begun"},
    {"root-append", Phase::kStep, "before the hash root of a version enters the log"},
    {"root-appended", Phase::kStep, "after it"},
    {"version-publish", Phase::kStep, "the version is made, no reader sees it"},
    {"apply-report", Phase::kStep, "a decision is applied and published, the coordinator was not told"},
    {"apply-reported", Phase::kStep, "after it"},
    // ---- checkpoints
    {"checkpoint-begin", Phase::kCheckpoint, "a CHECKPOINT decision is applied, no block is owed"},
    {"block-copy", Phase::kCheckpoint, "before an owed block is copied"},
    {"block-copied", Phase::kCheckpoint, "after it"},
    {"checkpoint-seal", Phase::kCheckpoint, "blocks are ingested, the log may not be synced up to the decision"},
    {"checkpoint-sealed", Phase::kCheckpoint, "the log is synced, no meta record is stored"},
    {"checkpoint-done", Phase::kCheckpoint, "the meta record is durable, the coordinator was not told"},
    {"checkpoint-drop", Phase::kCheckpoint, "before the blocks of an old checkpoint are dropped"},
    {"checkpoint-dropped", Phase::kCheckpoint, "after it"},
    {"manifest-take", Phase::kCheckpoint, "a shard hears that a manifest is durable"},
    {"manifest-taken", Phase::kCheckpoint, "it dropped old checkpoints and asked for the cut of the log"},
    // ---- recovery of a shard
    {"recovery-begin", Phase::kStart, "the store is open, nothing of the run was read"},
    {"checkpoint-load", Phase::kStart, "checkpoints are listed, none is loaded"},
    {"checkpoint-loaded", Phase::kStart, "the newest good one is loaded"},
    {"record-replay", Phase::kStart, "before a log record is replayed"},
    {"record-replayed", Phase::kStart, "after it"},
    {"log-replayed", Phase::kStart, "the whole log is replayed"},
    {"log-begun", Phase::kStart, "the record that a log was begun is durable"},
    {"run-recovered", Phase::kStart, "the shard is whole, nobody can reach it"},
    // ---- runs
    {"run-open", Phase::kRun, "before a shard of a run is opened"},
    {"run-opened", Phase::kRun, "it is open, nobody can reach it"},
    {"run-remove", Phase::kRun, "the shard is closed, its records and log are there"},
    {"run-forgotten", Phase::kRun, "its records are gone, its log is there"},
    {"run-removed", Phase::kRun, "both are gone"},
    {"run-store", Phase::kRun, "before the record of a new run is stored"},
    {"run-stored", Phase::kRun, "the record is durable, the run has no log"},
    {"run-created", Phase::kRun, "the run serves, the caller does not know"},
    {"run-delete", Phase::kRun, "a run is stopped to be removed, its record is there"},
    {"run-deleted", Phase::kRun, "the record is gone, other servers do not know"},
    // ---- coordinator
    {"runs-load", Phase::kStart, "before the records of all runs are read"},
    {"runs-loaded", Phase::kStart, "they are read, no run is open"},
    {"ledger-load", Phase::kStart, "shard 0 of the run is open, its manifests and decisions were not read"},
    {"ledger-loaded", Phase::kStart, "they are read, there is no coordinator yet"},
    {"host-added", Phase::kStart, "the coordinator of a run is restored"},
    {"session-open", Phase::kStep, "a worker asks for a session"},
    {"claim-take", Phase::kStep, "before a claim is looked at"},
    {"submit-take", Phase::kStep, "the coordinator took a Submit, its step is not decided"},
    {"submit-taken", Phase::kStep, "after it; the step may be decided, nothing of it is in the log"},
    {"step-decide", Phase::kStep, "a decision is made, it is not in the log"},
    {"ack-send", Phase::kStep, "a step is applied by all, its workers were not told"},
    {"ack-sent", Phase::kStep, "after it"},
    {"manifest-put", Phase::kCheckpoint, "all shards are done, the manifest is not stored"},
    {"manifest-stored", Phase::kCheckpoint, "the manifest is durable, nobody knows"},
    {"manifest-drop", Phase::kCheckpoint, "before old manifests are deleted"},
    {"manifest-dropped", Phase::kCheckpoint, "after it"},
    {"epoch-begin", Phase::kEpoch, "BeginEpoch came"},
    {"epoch-commit", Phase::kEpoch, "CommitEpoch came"},
    {"epoch-put", Phase::kEpoch, "before the record of an epoch is stored"},
    {"epoch-stored", Phase::kEpoch, "after it, the caller does not know"},
    // ---- Follow, on servers other than 0
    {"follow-open", Phase::kStart, "the stream to server 0 is open, nothing is said"},
    {"follow-welcome", Phase::kStart, "server 0 answered, its life is not remembered"},
    {"follow-welcomed", Phase::kStart, "its life is durable"},
    {"follow-announce", Phase::kStart, "the run is open, its position is not sent"},
    {"follow-announced", Phase::kStart, "the position is sent"},
    {"follow-decision", Phase::kStep, "a decision came, the shard does not have it"},
    // ---- process
    {"listen-begin", Phase::kStart, "the data directory is open, no port is"},
    {"listen-done", Phase::kStart, "the port is open, nothing is recovered"},
    {"serve-begin", Phase::kStart, "everything is recovered, health does not say so"},
};

inline constexpr size_t kFailpoints = sizeof(kFailpointLines) / sizeof(kFailpointLines[0]);

// kFailpoints when there is no such name.
constexpr size_t FailpointIndex(std::string_view name) {
  size_t point = 0;
  while (point < kFailpoints && kFailpointLines[point].name != name) ++point;
  return point;
}

}  // namespace ballast

#endif  // BALLAST_SERVER_FAILPOINT_LIST_H_
