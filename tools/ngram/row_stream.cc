#include "tools/ngram/row_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace ballast::ngram {
namespace {

constexpr size_t kBlockUnits = 16 << 10;     // 64 KiB: large enough for the disk, small enough for a thousand open files.
constexpr size_t kBlockUnitsMax = 16 << 20;  // What a reader takes from others at most.
constexpr size_t kHeaderBytesMax = 64 << 10;

}  // namespace

absl::StatusOr<std::unique_ptr<RowWriter>> RowWriter::Create(const std::string& path, const Header& header) {
  absl::StatusOr<std::unique_ptr<OutputFile>> file = OutputFile::Create(path);
  if (!file.ok()) return file.status();
  if (absl::Status written = (*file)->Write(FormatHeader(header)); !written.ok()) return written;
  return std::unique_ptr<RowWriter>(new RowWriter(*std::move(file)));
}

RowWriter::Pending& RowWriter::PendingOf(RowKind kind, int n) {
  if (latest_ != nullptr && latest_->kind == kind && latest_->n == n) return *latest_;
  for (const std::unique_ptr<Pending>& pending : pending_) {
    if (pending->kind == kind && pending->n == n) return *(latest_ = pending.get());
  }
  pending_.push_back(std::make_unique<Pending>(Pending{kind, n, 0, {}}));
  return *(latest_ = pending_.back().get());
}

absl::Status RowWriter::Add(RowKind kind, int n, const WordId* words, const uint32_t* values) {
  Pending& pending = PendingOf(kind, n);
  pending.units.insert(pending.units.end(), words, words + WordUnits(kind, n));
  pending.units.insert(pending.units.end(), values, values + ValueUnits(kind, n));
  ++pending.rows;
  return pending.units.size() < kBlockUnits ? absl::OkStatus() : Flush(pending);
}

absl::Status RowWriter::AddCount(RowKind kind, int n, const WordId* words, uint64_t count) {
  uint32_t values[2];
  StoreCount(count, values);
  return Add(kind, n, words, values);
}

absl::Status RowWriter::AddFloat(RowKind kind, int n, const WordId* words, float value) {
  uint32_t bits;
  StoreFloat(value, &bits);
  return Add(kind, n, words, &bits);
}

absl::Status RowWriter::WriteFrame(RowKind kind, int n, uint32_t rows) {
  unsigned char frame[kFrameBytes] = {static_cast<unsigned char>(kind), static_cast<unsigned char>(n)};
  std::memcpy(frame + 4, &rows, sizeof(rows));
  return file_->Write(frame, sizeof(frame));
}

absl::Status RowWriter::Flush(Pending& pending) {
  if (pending.rows == 0) return absl::OkStatus();
  if (absl::Status written = WriteFrame(pending.kind, pending.n, pending.rows); !written.ok()) return written;
  if (absl::Status written = file_->Write(pending.units.data(), pending.units.size() * sizeof(uint32_t)); !written.ok()) return written;
  rows_ += std::exchange(pending.rows, 0);
  pending.units.clear();
  return absl::OkStatus();
}

absl::Status RowWriter::Finish() {
  for (const std::unique_ptr<Pending>& pending : pending_) {
    if (absl::Status flushed = Flush(*pending); !flushed.ok()) return flushed;
  }
  // The end has no rows of its own; its number of rows is that of the stream, modulo 2^32.
  if (absl::Status written = WriteFrame(RowKind::kEnd, 0, static_cast<uint32_t>(rows_)); !written.ok()) return written;
  return file_->Commit();
}

absl::StatusOr<std::unique_ptr<RowReader>> RowReader::Open(const std::string& path) {
  absl::StatusOr<std::unique_ptr<InputFile>> file = InputFile::Open(path);
  if (!file.ok()) return file.status();
  std::unique_ptr<RowReader> reader(new RowReader(*std::move(file)));
  if (absl::Status read = reader->ReadHeader(); !read.ok()) return read;
  return reader;
}

absl::Status RowReader::Damaged(uint64_t offset, const std::string& what) const {
  return absl::DataLossError(absl::StrCat(file_->path() == "-" ? "standard input" : file_->path(), " at byte ", offset, ": ", what));
}

absl::Status RowReader::ReadHeader() {
  std::vector<std::string> lines(1);
  for (size_t bytes = 0;; ++bytes) {
    char c;
    absl::StatusOr<size_t> got = file_->Read(&c, 1);
    if (!got.ok()) return got.status();
    if (*got == 0 || bytes > kHeaderBytesMax) return Damaged(bytes, "rows must begin with a head that ends in an empty line");
    if (c != '\n') {
      lines.back() += c;
    } else if (lines.back().empty()) {
      offset_ = bytes + 1;
      break;
    } else {
      lines.emplace_back();
    }
  }
  lines.pop_back();
  absl::StatusOr<Header> header = ParseHeader(lines);
  if (!header.ok()) return Damaged(0, std::string(header.status().message()));
  header_ = *std::move(header);
  return absl::OkStatus();
}

absl::Status RowReader::ParseFrame(const unsigned char* frame, uint64_t offset, Block& block) const {
  block.kind = static_cast<RowKind>(frame[0]);
  block.n = frame[1];
  std::memcpy(&block.rows, frame + 4, sizeof(block.rows));
  const bool orders = block.kind == RowKind::kEnd ? block.n == 0 : block.n >= 1 && block.n <= header_.order;
  if (ValueUnits(block.kind, 1) < 0 || !orders || frame[2] != 0 || frame[3] != 0) return Damaged(offset, "no block begins here");
  block.stride = RowUnits(block.kind, block.n);
  if (block.kind == RowKind::kEnd) return absl::OkStatus();
  if (block.stride == 0 || block.rows > kBlockUnitsMax / static_cast<size_t>(block.stride)) return Damaged(offset, "a block is too large");
  return absl::OkStatus();
}

absl::StatusOr<bool> RowReader::Next(Block& block) {
  unsigned char frame[kFrameBytes];
  absl::StatusOr<size_t> got = file_->Read(frame, sizeof(frame));
  if (!got.ok()) return got.status();
  if (*got != sizeof(frame)) return Damaged(offset_, "cut off: there is no end");
  if (absl::Status parsed = ParseFrame(frame, offset_, block); !parsed.ok()) return parsed;
  if (block.kind == RowKind::kEnd) {
    if (block.rows != static_cast<uint32_t>(rows_))
      return Damaged(offset_, absl::StrCat("the end says ", block.rows, " rows, there were ", rows_));
    return false;
  }
  block.units.resize(block.rows * static_cast<size_t>(block.stride));
  const size_t bytes = block.units.size() * sizeof(uint32_t);
  got = file_->Read(block.units.data(), bytes);
  if (!got.ok()) return got.status();
  if (*got != bytes) return Damaged(offset_, "cut off inside of a block");
  offset_ += kFrameBytes + bytes;
  rows_ += block.rows;
  return true;
}

absl::StatusOr<bool> RowReader::NextStream() {
  absl::StatusOr<bool> end = file_->AtEnd();
  if (!end.ok()) return end.status();
  if (*end) return false;
  rows_ = 0;
  if (absl::Status read = ReadHeader(); !read.ok()) return read;
  return true;
}

absl::StatusOr<std::vector<RowReader::Place>> RowReader::Index() const {
  std::vector<Place> places;
  Block block;
  uint64_t rows = 0;
  for (uint64_t offset = offset_;;) {
    unsigned char frame[kFrameBytes];
    if (absl::Status read = file_->ReadAt(offset, frame, sizeof(frame)); !read.ok()) return read;
    if (absl::Status parsed = ParseFrame(frame, offset, block); !parsed.ok()) return parsed;
    if (block.kind == RowKind::kEnd) {
      if (block.rows == static_cast<uint32_t>(rows)) return places;
      return Damaged(offset, absl::StrCat("the end says ", block.rows, " rows, there are ", rows));
    }
    places.push_back({block.kind, block.n, block.rows, offset});
    offset += kFrameBytes + uint64_t{block.rows} * static_cast<size_t>(block.stride) * sizeof(uint32_t);
    rows += block.rows;
  }
}

absl::Status RowReader::ReadAt(const Place& place, Block& block) const {
  unsigned char frame[kFrameBytes];
  if (absl::Status read = file_->ReadAt(place.offset, frame, sizeof(frame)); !read.ok()) return read;
  if (absl::Status parsed = ParseFrame(frame, place.offset, block); !parsed.ok()) return parsed;
  block.units.resize(block.rows * static_cast<size_t>(block.stride));
  return file_->ReadAt(place.offset + kFrameBytes, block.units.data(), block.units.size() * sizeof(uint32_t));
}

}  // namespace ballast::ngram
