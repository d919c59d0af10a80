#include "server/shard/publisher.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace ballast {
namespace {

std::shared_ptr<const Encoding> Made(uint64_t version) {
  Encoding e;
  e.version = version;
  return std::make_shared<const Encoding>(e);
}

TEST(PublisherTest, PullParksUntilItsVersionIsServed) {
  int wakes = 0, encoded = 0;
  Publisher publisher([&] { ++wakes; });
  std::vector<uint64_t> got;
  const auto ready = [&](std::shared_ptr<const Encoding> e) { got.push_back(e->version); };
  EXPECT_NE(publisher.Pull(0, Codec::kFp32, ready), 0u);  // version 0 is nobody's weights
  EXPECT_NE(publisher.Pull(2, Codec::kFp32, ready), 0u);
  EXPECT_EQ(wakes, 0);
  const auto serve = [&](uint64_t version) { publisher.Serve(version, [&](Codec) { return ++encoded, Made(version); }); };
  serve(1);
  EXPECT_EQ(got, (std::vector<uint64_t>{1}));
  serve(2);
  EXPECT_EQ(got, (std::vector<uint64_t>{1, 2}));
  EXPECT_EQ(encoded, 2);
}

TEST(PublisherTest, AnEncodingIsMadeOnceAndShared) {
  int wakes = 0, encoded = 0;
  Publisher publisher([&] { ++wakes; });
  std::vector<std::shared_ptr<const Encoding>> got;
  const auto ready = [&](std::shared_ptr<const Encoding> e) { got.push_back(std::move(e)); };
  const auto encode = [&](Codec) { return ++encoded, Made(5); };
  publisher.Serve(5, encode);
  EXPECT_EQ(encoded, 0);  // nobody asked
  EXPECT_NE(publisher.Pull(3, Codec::kBf16, ready), 0u);
  EXPECT_EQ(wakes, 1);
  publisher.Serve(5, encode);
  EXPECT_EQ(publisher.Pull(5, Codec::kBf16, ready), 0u);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0], got[1]);
  EXPECT_EQ(encoded, 1);
  EXPECT_NE(publisher.Pull(5, Codec::kInt8, ready), 0u);  // another codec is another encoding
  publisher.Serve(5, encode);
  EXPECT_EQ(encoded, 2);
}

TEST(PublisherTest, CancelledPullIsNeverAnswered) {
  Publisher publisher([] {});
  const uint64_t id = publisher.Pull(1, Codec::kFp32, [](std::shared_ptr<const Encoding>) { FAIL(); });
  publisher.Cancel(id);
  publisher.Serve(1, [](Codec) { return Made(1); });
}

TEST(PublisherTest, WhoeverWaitsHearsThatItCloses) {
  Publisher publisher([] {});
  int answers = 0;
  const auto closed = [&](std::shared_ptr<const Encoding> e) {
    EXPECT_EQ(e, nullptr);
    ++answers;
  };
  EXPECT_NE(publisher.Pull(1, Codec::kFp32, closed), 0u);
  publisher.Close();
  EXPECT_EQ(answers, 1);
  EXPECT_EQ(publisher.Pull(1, Codec::kFp32, closed), 0u);
  EXPECT_EQ(answers, 2);
}

}  // namespace
}  // namespace ballast
