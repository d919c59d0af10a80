#include "server/control/artifacts.h"

#include <gtest/gtest.h>

#include "core/status.h"
#include "server/storage/memory_store.h"

namespace ballast {
namespace {

// FIPS 180-2, appendix B.1 and B.3.
constexpr char kAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr char kMillionA[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

class ArtifactsTest : public testing::Test {
 protected:
  absl::Status Put(const std::string& sha256, const std::string& bytes, uint64_t announced, size_t at_once) {
    auto writer = artifacts_.Write(sha256, announced);
    if (!writer.ok()) return writer.status();
    for (size_t from = 0; from < bytes.size(); from += at_once) {
      if (absl::Status added = (*writer)->Add(bytes.substr(from, at_once)); !added.ok()) return added;
    }
    return (*writer)->Finish();
  }

  MemoryStore store_;
  absl::Status room_;
  Artifacts artifacts_{&store_, [this](uint64_t) { return room_; }};
};

TEST_F(ArtifactsTest, ComesBackAsItWasWhateverThePiecesWere) {
  const std::string bytes(1000000, 'a');
  for (size_t at_once : {size_t{7777}, size_t{1} << 20}) {
    ASSERT_TRUE(Put(kMillionA, bytes, bytes.size(), at_once).ok());
    EXPECT_EQ(*artifacts_.Bytes(kMillionA), bytes.size());
    EXPECT_EQ(*artifacts_.ReadPiece(kMillionA, 0), bytes);
    EXPECT_FALSE(artifacts_.ReadPiece(kMillionA, 1).ok());
  }
}

TEST_F(ArtifactsTest, WrongBytesLeaveNothing) {
  const absl::Status wrong = Put(kAbc, "abd", 3, 1);
  EXPECT_EQ(wrong.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ReasonOf(wrong), "BAD_DIGEST");
  EXPECT_FALSE(*artifacts_.Has(kAbc));
  EXPECT_EQ(Put(kAbc, "ab", 3, 1).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Put(kAbc, "abcd", 3, 1).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(*artifacts_.Has(kAbc));
  EXPECT_TRUE(Put(kAbc, "abc", 3, 2).ok());
  EXPECT_TRUE(*artifacts_.Has(kAbc));
}

TEST_F(ArtifactsTest, WhatDoesNotFitTheDiskIsNotBegun) {
  room_ = absl::ResourceExhaustedError("full");
  EXPECT_EQ(Put(kAbc, "abc", 3, 3), room_);
  EXPECT_FALSE(*artifacts_.Has(kAbc));
}

TEST_F(ArtifactsTest, AnnouncementIsCheckedBeforeAnythingIsStored) {
  EXPECT_EQ(artifacts_.Write("ABC", 3).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(artifacts_.Write("../../etc/passwd", 3).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(artifacts_.Write(kAbc, kArtifactBytesMax + 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(artifacts_.Bytes(kAbc).status()), "NO_ARTIFACT");
}

}  // namespace
}  // namespace ballast
