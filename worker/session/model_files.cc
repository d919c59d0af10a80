#include "worker/session/model_files.h"

#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/status.h"
#include "worker/log.h"

namespace ballast {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::minutes kDownloadLimit(10);

bool IsDigest(absl::string_view text) {
  return text.size() == 64 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

}  // namespace

std::string Sha256Hex(absl::string_view bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(), nullptr) != 1) return "";
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest.data()), size));
}

ModelFiles::ModelFiles(std::string dir, uint64_t dir_bytes_max, Cluster* cluster)
    : dir_(std::move(dir)), dir_bytes_max_(dir_bytes_max), cluster_(cluster) {
  std::error_code error;
  fs::create_directories(dir_, error);
  if (error) LogWarning("model files cannot be kept", {{"dir", dir_}, {"error", error.message()}});
}

absl::StatusOr<std::string> ModelFiles::Get(const std::string& sha256) {
  if (!IsDigest(sha256)) return absl::InvalidArgumentError(absl::StrCat("\"", sha256, "\" is not a SHA-256 in lower-case hex"));
  const fs::path path = fs::path(dir_) / sha256;
  std::ifstream in(path, std::ios::binary);
  if (in) {
    std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    std::error_code ignored;
    if (Sha256Hex(bytes) == sha256) {
      fs::last_write_time(path, fs::file_time_type::clock::now(), ignored);
      return bytes;
    }
    LogWarning("a kept model file is damaged; it is fetched again", {{"file", path.string()}});
    fs::remove(path, ignored);
  }
  absl::StatusOr<std::string> bytes = Download(sha256);
  if (bytes.ok()) Keep(sha256, *bytes);
  return bytes;
}

absl::StatusOr<std::string> ModelFiles::Download(const std::string& sha256) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kDownloadLimit);
  v1::ArtifactRef ref;
  ref.set_sha256(sha256);
  const auto stub = v1::Control::NewStub(cluster_->control());
  const auto reader = stub->GetArtifact(&context, ref);
  std::string bytes;
  v1::Piece piece;
  while (reader->Read(&piece)) {
    if (piece.total_bytes() > kArtifactBytesMax || bytes.size() + piece.data().size() > kArtifactBytesMax) {
      context.TryCancel();
      return absl::DataLossError(absl::StrCat("artifact ", sha256, " is larger than ", kArtifactBytesMax, " bytes"));
    }
    if (bytes.empty()) bytes.reserve(piece.total_bytes());
    bytes += piece.data();
  }
  if (const grpc::Status status = reader->Finish(); !status.ok()) return FromGrpc(status);
  if (Sha256Hex(bytes) != sha256)
    return absl::DataLossError(absl::StrCat("the bytes that came as artifact ", sha256, " have another digest"));
  return bytes;
}

// Written beside and renamed: another worker may share the folder.
void ModelFiles::Keep(const std::string& sha256, absl::string_view bytes) {
  static std::atomic<uint64_t> last{0};
  const fs::path path = fs::path(dir_) / sha256;
  const fs::path part = fs::path(dir_) / absl::StrCat(sha256, ".part", getpid(), "-", ++last);
  std::ofstream out(part, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  std::error_code error;
  if (out) fs::rename(part, path, error);
  if (!out || error) fs::remove(part, error);
  Evict();
}

void ModelFiles::Evict() {
  struct File {
    fs::file_time_type used;
    fs::path path;
    uint64_t bytes;
  };
  std::vector<File> files;
  uint64_t total = 0;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(dir_, error)) {
    if (!IsDigest(entry.path().filename().string())) continue;
    files.push_back({entry.last_write_time(error), entry.path(), static_cast<uint64_t>(entry.file_size(error))});
    total += files.back().bytes;
  }
  std::sort(files.begin(), files.end(), [](const File& a, const File& b) { return a.used < b.used; });
  for (size_t i = 0; i + 1 < files.size() && total > dir_bytes_max_; ++i) {  // the newest always stays
    fs::remove(files[i].path, error);
    total -= files[i].bytes;
  }
}

}  // namespace ballast
