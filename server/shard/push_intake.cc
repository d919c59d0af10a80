#include "server/shard/push_intake.h"

#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/coordinator/receipt.h"
#include "core/record/chunk.h"
#include "server/failpoint.h"
#include "server/metrics.h"

namespace ballast {
namespace {

double Seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

void PushIntake::Take(PushedChunk& chunk, const Done& done) {
  if (closed_) {
    if (chunk.last) Refuse(chunk.uid, absl::UnavailableError("STOPPED: the server is stopping"), done);
    return;
  }
  Staging& staging = replica_->staging();
  const absl::StatusOr<Staging::Verdict> verdict = staging.Offer(chunk.uid, chunk.index, chunk.payload.size(), /*untrusted=*/true);
  if (!verdict.ok()) {
    if (chunk.uid.session < staging.closed_below() && !chunk.last) return;  // one answer, at its last chunk
    return Refuse(chunk.uid, verdict.status(), done);
  }
  switch (*verdict) {
    case Staging::Verdict::kIgnore:
      return;
    case Staging::Verdict::kHeld:
      if (chunk.last) AnswerHeld(chunk.uid, done);
      return;
    case Staging::Verdict::kTake:
      break;
  }
  absl::StatusOr<CheckedChunk> checked = staging.Check(chunk.head, chunk.payload, /*untrusted=*/true);
  if (!checked.ok()) return Refuse(chunk.uid, checked.status(), done);
  const ChunkHead& head = checked->head;
  if (Uid{head.session, head.uid} != chunk.uid || head.index != chunk.index || head.last != chunk.last) {
    return Refuse(chunk.uid, absl::InvalidArgumentError("BAD_BLOCK: the chunk's head was changed on its way"), done);
  }
  Add(chunk, *std::move(checked), done);
}

void PushIntake::Add(PushedChunk& chunk, CheckedChunk checked, const Done& done) {
  const absl::string_view body[] = {chunk.head, chunk.payload};
  BALLAST_FAILPOINT("contribution-append");
  absl::StatusOr<LogPosition> at = LogPosition();
  if (replica_->LogsContributions()) at = log_->Append(RecordKind::kContribution, body, nullptr);
  if (!at.ok()) return Refuse(chunk.uid, absl::UnavailableError(absl::StrCat("STOPPED: ", at.status().message())), done);
  BALLAST_FAILPOINT("contribution-appended");
  const bool first = checked.head.index == 0;
  Contribution* held = replica_->staging().Add(std::move(checked), std::move(chunk.payload), *at);
  if (first) held->started = Seconds();
  if (held->complete) OnComplete(*held, done);
}

void PushIntake::OnComplete(const Contribution& held, const Done& done) {
  if (options_->coordinator_log) events_->OnOwnLog(held.uid);
  auto answer = [this, done, started = held.started, result = Receive(held.uid, held.checksum, held.norm2)] {
    BALLAST_FAILPOINT("receipt-send");
    if (metrics_ != nullptr && started != 0) metrics_->PushDone(Seconds() - started);
    done(result);
    BALLAST_FAILPOINT("receipt-sent");
  };
  if (ReceiptDue(options_->rules, options_->coordinator_log, /*synced=*/false)) return answer();
  log_->WhenSynced(held.last.sequence, std::move(answer));
}

PushResult PushIntake::Receive(const Uid& uid, uint64_t checksum, double norm2) const {
  Receipt receipt{options_->shard, options_->incarnation, checksum, norm2};
  receipt.proof = ReceiptProof(options_->receipt_key, uid, receipt);
  return {uid, receipt, "", ""};
}

void PushIntake::AnswerHeld(Uid uid, const Done& done) {
  if (const Contribution* held = replica_->staging().Find(uid); held != nullptr) return OnComplete(*held, done);
  const DecidedReceipt receipt = *replica_->staging().FindDecided(uid);
  done(Receive(uid, receipt.checksum, receipt.norm2));
}

void PushIntake::Refuse(Uid uid, const absl::Status& why, const Done& done) {
  replica_->staging().Refuse(uid);
  if (metrics_ != nullptr) metrics_->PushRefused();
  const std::pair<std::string, std::string> name_and_detail = absl::StrSplit(why.message(), absl::MaxSplits(": ", 1));
  done({uid, {options_->shard, options_->incarnation}, name_and_detail.first, name_and_detail.second});
}

}  // namespace ballast
