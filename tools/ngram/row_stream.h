// Row streams: a head, blocks of rows of one kind and order, an end that says how many rows there were. docs/NGRAM.md, "Rows".
// Little-endian, as the machines are. One thread at a time for each object.
#ifndef BALLAST_TOOLS_NGRAM_ROW_STREAM_H_
#define BALLAST_TOOLS_NGRAM_ROW_STREAM_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/ngram/file.h"
#include "tools/ngram/header.h"
#include "tools/ngram/row.h"

namespace ballast::ngram {

// The frame of a block, as stored: kind, n, two zero bytes, number of rows (u32).
inline constexpr size_t kFrameBytes = 8;

class RowWriter {
 public:
  static absl::StatusOr<std::unique_ptr<RowWriter>> Create(const std::string& path, const Header& header);

  // Adds one row: its words (last word first), then its values. Rows of one kind and order keep their order; others may pass them.
  [[nodiscard]] absl::Status Add(RowKind kind, int n, const WordId* words, const uint32_t* values);
  [[nodiscard]] absl::Status AddCount(RowKind kind, int n, const WordId* words, uint64_t count);
  [[nodiscard]] absl::Status AddFloat(RowKind kind, int n, const WordId* words, float value);

  // Writes the end and gives the file its name.
  [[nodiscard]] absl::Status Finish();

 private:
  struct Pending {
    RowKind kind;
    int n;
    uint32_t rows = 0;
    std::vector<uint32_t> units;
  };
  explicit RowWriter(std::unique_ptr<OutputFile> file) : file_(std::move(file)) {}
  Pending& PendingOf(RowKind kind, int n);
  absl::Status Flush(Pending& pending);
  absl::Status WriteFrame(RowKind kind, int n, uint32_t rows);

  std::unique_ptr<OutputFile> file_;
  std::vector<std::unique_ptr<Pending>> pending_;  // One for each kind and order in use: a handful.
  Pending* latest_ = nullptr;
  uint64_t rows_ = 0;
};

// Rows that follow each other in a stream.
struct Block {
  RowKind kind = RowKind::kEnd;
  int n = 0;
  uint32_t rows = 0;
  int stride = 0;  // Units of 4 bytes from row to row; the words come first.
  std::vector<uint32_t> units;

  const uint32_t* row(size_t i) const { return units.data() + i * static_cast<size_t>(stride); }
  const uint32_t* values(size_t i) const { return row(i) + WordUnits(kind, n); }
};

class RowReader {
 public:
  // Reads the head. Errors: NotFound, Unavailable; DataLoss when it is no head of ours.
  static absl::StatusOr<std::unique_ptr<RowReader>> Open(const std::string& path);

  const Header& header() const { return header_; }
  // False at the end. Errors: DataLoss when the stream is damaged or was cut off.
  absl::StatusOr<bool> Next(Block& block);
  // After the end: goes on to the stream that follows in the same file, if there is one. For pipes that carry several shards.
  absl::StatusOr<bool> NextStream();

  // Where the blocks are; only for files, right after Open.
  struct Place {
    RowKind kind;
    int n;
    uint32_t rows;
    uint64_t offset;
  };
  absl::StatusOr<std::vector<Place>> Index() const;
  // Reads the block at a place of Index(). Any thread, for blocks of their own.
  [[nodiscard]] absl::Status ReadAt(const Place& place, Block& block) const;

 private:
  explicit RowReader(std::unique_ptr<InputFile> file) : file_(std::move(file)) {}
  absl::Status ReadHeader();
  absl::Status ParseFrame(const unsigned char* frame, uint64_t offset, Block& block) const;
  absl::Status Damaged(uint64_t offset, const std::string& what) const;

  std::unique_ptr<InputFile> file_;
  Header header_;
  uint64_t offset_ = 0;  // Of the next frame.
  uint64_t rows_ = 0;
};

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_ROW_STREAM_H_
