#include "server/control/disk_reactors.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/status.h"
#include "proto/convert.h"
#include "proto/status.h"

namespace ballast {
namespace {

class PutArtifactReactor final : public grpc::ServerReadReactor<v1::Piece> {
 public:
  PutArtifactReactor(Artifacts* artifacts, Mailbox* disk, v1::Artifact* response)
      : artifacts_(artifacts), disk_(disk), response_(response) {
    StartRead(&piece_);
  }

  void OnReadDone(bool ok) override {
    disk_->Post([this, ok] {
      if (!ok) return Finish(ToGrpc(Complete()));
      bool stored = false;
      const absl::Status taken = Take(&stored);
      if (!taken.ok() || stored) return Finish(ToGrpc(taken));
      StartRead(&piece_);
    });
  }
  void OnDone() override { delete this; }

 private:
  // An artifact that is here already is answered at its first piece.
  absl::Status Take(bool* stored) {
    if (piece_.data().size() > kPieceBytes)
      return absl::InvalidArgumentError(absl::StrCat("data: ", piece_.data().size(), " bytes, at most ", kPieceBytes));
    if (writer_ == nullptr) {
      response_->set_sha256(piece_.sha256());
      response_->set_bytes(piece_.total_bytes());
      auto has = artifacts_->Has(piece_.sha256());
      if (!has.ok()) return has.status();
      *stored = *has;
      if (*stored) return absl::OkStatus();
      auto writer = artifacts_->Write(piece_.sha256(), piece_.total_bytes());
      if (!writer.ok()) return writer.status();
      writer_ = *std::move(writer);
    }
    return writer_->Add(piece_.data());
  }

  absl::Status Complete() { return writer_ == nullptr ? absl::InvalidArgumentError("PutArtifact: no piece came") : writer_->Finish(); }

  Artifacts* const artifacts_;
  Mailbox* const disk_;
  v1::Artifact* const response_;
  v1::Piece piece_;
  std::unique_ptr<Artifacts::Writer> writer_;
};

class GetArtifactReactor final : public grpc::ServerWriteReactor<v1::Piece> {
 public:
  GetArtifactReactor(Artifacts* artifacts, Mailbox* disk, std::string sha256)
      : artifacts_(artifacts), disk_(disk), sha256_(std::move(sha256)) {
    Next();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    Next();
  }
  void OnDone() override { delete this; }

 private:
  void Next() {
    disk_->Post([this] {
      const absl::Status status = ReadNext();
      if (!status.ok() || done_) return Finish(ToGrpc(status));
      StartWrite(&piece_);
    });
  }

  absl::Status ReadNext() {
    piece_.Clear();
    if (next_ == 0) {
      auto bytes = artifacts_->Bytes(sha256_);
      if (!bytes.ok()) return bytes.status();
      total_bytes_ = *bytes;
      piece_.set_sha256(sha256_);
      piece_.set_total_bytes(total_bytes_);
    }
    done_ = next_ * kPieceBytes >= std::max<uint64_t>(total_bytes_, 1);
    if (done_ || total_bytes_ == 0) return ++next_, absl::OkStatus();  // an empty artifact is one empty piece
    auto data = artifacts_->ReadPiece(sha256_, next_++);
    if (!data.ok()) return absl::DataLossError(absl::StrCat("piece ", next_ - 1, " of artifact ", sha256_, ": ", data.status().message()));
    piece_.set_data(*std::move(data));
    return absl::OkStatus();
  }

  Artifacts* const artifacts_;
  Mailbox* const disk_;
  const std::string sha256_;
  v1::Piece piece_;
  uint64_t total_bytes_ = 0;
  uint64_t next_ = 0;
  bool done_ = false;
};

class ListDecisionsReactor final : public grpc::ServerWriteReactor<v1::Decision> {
 public:
  ListDecisionsReactor(RunTable* runs, Mailbox* disk, v1::DecisionRange range) : runs_(runs), disk_(disk), range_(std::move(range)) {
    next_ = std::max<uint64_t>(range_.first_index(), 1);
    Next();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    Next();
  }
  void OnDone() override { delete this; }

 private:
  static constexpr uint64_t kAtOnce = 512;  // decisions held in memory

  void Next() {
    disk_->Post([this] {
      if (read_.empty()) {
        if (absl::Status status = ReadMore(); !status.ok() || read_.empty()) return Finish(ToGrpc(status));
      }
      out_ = ToProto(*read_.front());
      read_.pop_front();
      StartWrite(&out_);
    });
  }

  // Leaves `read_` empty at the end of the range. Decisions below the log's start are left out, not an error.
  absl::Status ReadMore() {
    const std::shared_ptr<OpenRun> run = runs_->Find(range_.run());
    if (run == nullptr)
      return WithReason(absl::NotFoundError(absl::StrCat("there is no run \"", range_.run(), "\"")), "NO_RUN", {{"run", range_.run()}});
    if (last_ == 0) {
      last_ = run->shard->Position().index;
      if (range_.last_index() != 0) last_ = std::min(last_, range_.last_index());
    }
    while (read_.empty() && next_ <= last_) {
      const uint64_t until = std::min(last_, next_ + kAtOnce - 1);
      auto decisions = run->shard->ReadDecisions(next_, until);
      if (!decisions.ok()) return decisions.status();
      read_.assign(decisions->begin(), decisions->end());
      next_ = until + 1;
    }
    return absl::OkStatus();
  }

  RunTable* const runs_;
  Mailbox* const disk_;
  const v1::DecisionRange range_;
  uint64_t next_ = 1;
  uint64_t last_ = 0;
  std::deque<std::shared_ptr<const Decision>> read_;
  v1::Decision out_;
};

}  // namespace

grpc::ServerReadReactor<v1::Piece>* NewPutArtifactReactor(Artifacts* artifacts, Mailbox* disk, v1::Artifact* response) {
  return new PutArtifactReactor(artifacts, disk, response);
}
grpc::ServerWriteReactor<v1::Piece>* NewGetArtifactReactor(Artifacts* artifacts, Mailbox* disk, std::string sha256) {
  return new GetArtifactReactor(artifacts, disk, std::move(sha256));
}
grpc::ServerWriteReactor<v1::Decision>* NewListDecisionsReactor(RunTable* runs, Mailbox* disk, v1::DecisionRange range) {
  return new ListDecisionsReactor(runs, disk, std::move(range));
}

}  // namespace ballast
