#include "server/control/artifacts.h"

#include <openssl/evp.h>

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/status.h"

namespace ballast {
namespace {

std::string BytesKey(absl::string_view sha256) { return absl::StrCat("artifact-bytes/", sha256); }
std::string PieceKey(absl::string_view sha256, uint64_t piece) { return absl::StrFormat("artifact/%s/%08d", sha256, piece); }

class Sha256 {
 public:
  Sha256() { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
  void Add(absl::string_view data) { EVP_DigestUpdate(context_.get(), data.data(), data.size()); }
  std::string Hex() {
    std::string digest(EVP_MAX_MD_SIZE, '\0');
    unsigned int bytes = 0;
    EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), &bytes);
    return absl::BytesToHexString(absl::string_view(digest).substr(0, bytes));
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_{EVP_MD_CTX_new(), &EVP_MD_CTX_free};
};

class BulkWriter : public Artifacts::Writer {
 public:
  BulkWriter(Store* store, std::unique_ptr<Store::Bulk> bulk, std::string sha256, uint64_t total_bytes)
      : store_(store), bulk_(std::move(bulk)), sha256_(std::move(sha256)), total_bytes_(total_bytes) {}

  absl::Status Add(absl::string_view data) override {
    if (data.size() > total_bytes_ - bytes_)
      return absl::InvalidArgumentError(absl::StrCat("more than the announced ", total_bytes_, " bytes"));
    bytes_ += data.size();
    digest_.Add(data);
    while (!data.empty()) {
      const absl::string_view part = data.substr(0, kPieceBytes - piece_.size());
      piece_.append(part.data(), part.size());
      data.remove_prefix(part.size());
      if (piece_.size() < kPieceBytes) break;
      if (absl::Status flushed = Flush(); !flushed.ok()) return flushed;
    }
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    if (bytes_ != total_bytes_) return absl::DataLossError(absl::StrCat(bytes_, " bytes came, ", total_bytes_, " were announced"));
    if (const std::string got = digest_.Hex(); got != sha256_) {
      return WithReason(absl::DataLossError(absl::StrCat("the bytes have the digest ", got, ", not ", sha256_, ": send the file again")),
                        "BAD_DIGEST");
    }
    absl::Status status = piece_.empty() ? absl::OkStatus() : Flush();
    if (status.ok() && next_ > 0) status = bulk_->Finish();
    if (status.ok()) status = store_->Put(BytesKey(sha256_), absl::StrCat(total_bytes_));
    return status;
  }

 private:
  absl::Status Flush() {
    const absl::Status added = bulk_->Add(PieceKey(sha256_, next_++), piece_);
    piece_.clear();
    return added;
  }

  Store* const store_;
  const std::unique_ptr<Store::Bulk> bulk_;
  const std::string sha256_;
  const uint64_t total_bytes_;
  Sha256 digest_;
  std::string piece_;
  uint64_t bytes_ = 0;
  uint64_t next_ = 0;
};

}  // namespace

bool IsSha256(absl::string_view text) {
  return text.size() == 64 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

absl::StatusOr<bool> Artifacts::Has(const std::string& sha256) const {
  const auto bytes = Bytes(sha256);
  if (bytes.ok()) return true;
  if (absl::IsNotFound(bytes.status())) return false;
  return bytes.status();
}

absl::StatusOr<uint64_t> Artifacts::Bytes(const std::string& sha256) const {
  const auto text = store_->Get(BytesKey(sha256));
  if (absl::IsNotFound(text.status())) {
    return WithReason(absl::NotFoundError(absl::StrCat("there is no artifact ", sha256)), "NO_ARTIFACT", {{"sha256", sha256}});
  }
  if (!text.ok()) return text.status();
  uint64_t bytes = 0;
  if (!absl::SimpleAtoi(*text, &bytes)) return absl::DataLossError(absl::StrCat("the record of artifact ", sha256, " is damaged"));
  return bytes;
}

absl::StatusOr<std::string> Artifacts::ReadPiece(const std::string& sha256, uint64_t piece) const {
  return store_->Get(PieceKey(sha256, piece));
}

absl::StatusOr<std::unique_ptr<Artifacts::Writer>> Artifacts::Write(const std::string& sha256, uint64_t total_bytes) {
  if (!IsSha256(sha256)) return absl::InvalidArgumentError("sha256: expected 64 digits of lower-case hex");
  if (total_bytes > kArtifactBytesMax)
    return absl::InvalidArgumentError(absl::StrCat("total_bytes: ", total_bytes, ", at most ", kArtifactBytesMax, " are allowed"));
  if (absl::Status fits = room_(total_bytes); !fits.ok()) return fits;
  auto bulk = store_->NewBulk();
  if (!bulk.ok()) return bulk.status();
  return std::unique_ptr<Writer>(std::make_unique<BulkWriter>(store_, *std::move(bulk), sha256, total_bytes));
}

}  // namespace ballast
