#include "core/record/decision.h"

#include <string>

#include "gtest/gtest.h"

namespace ballast {
namespace {

Decision Example() {
  Decision d;
  d.run = "demo";
  d.index = 2;
  d.parts = {Part{Uid{1, 7}, 128, {Batch{{1, 3, 0}, 128, 0x1122334455667788}}, 1, 2.5}};
  d.skipped = {SkippedBatch{Batch{{1, 4, 9}, 5, 1}, "NONFINITE"}};
  d.divisor = 128;
  d.hyper = {0.5f, 0};
  d.sessions_closed_below = 1;
  d.version = 2;
  d.step = 1;
  return d;
}

TEST(Decision, ReadsWhatItWrote) {
  Decision d = Example();
  SealDecision(0xabc, d);
  const auto back = ParseDecision(EncodeDecision(d));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, d);
  EXPECT_EQ(EncodeDecision(*back), EncodeDecision(d));
}

TEST(Decision, BytesOfAnExample) {
  Decision d;
  d.run = "r";
  d.index = 1;
  d.kind = DecisionKind::kInit;
  d.parts = {Part{Uid{1, 1}, 0, {}, 0, 0}};
  d.version = 1;
  const std::string expected(
      "\x0a\x01r"                                 // run
      "\x10\x01\x18\x01"                          // generation, index
      "\x28\x02"                                  // kind INIT
      "\x32\x06\x0a\x04\x08\x01\x10\x01"          // parts: uid
      "\x45\x00\x00\x80\x3f\x4d\x00\x00\x80\x3f"  // divisor, clip_scale: 1.0
      "\x58\x01\x68\x01",                         // kernel_id, version
      3 + 4 + 2 + 8 + 10 + 4);
  EXPECT_EQ(EncodeDecision(d), expected);
}

// docs/wire_format.md section 3.
TEST(Decision, ChainOfTheDocumentsExample) {
  Decision d;
  d.run = "r";
  d.index = 2;
  d.parts = {Part{Uid{2, 1}, 5, {Batch{{1, 3, 0}, 5, 0x8877665544332211}}, 1, 0.5}};
  d.divisor = 5;
  d.hyper = {0.5f, 0, 0, 1, 0, 1, 0, 0};
  d.sessions_closed_below = 1;
  d.version = 2;
  d.step = 1;
  EXPECT_EQ(ChainOf(0x0102030405060708, d), 0x6a15c20caf2dcb92u);
  EXPECT_EQ(EncodeDecision(d).size(), 108u - 9u);
}

TEST(Decision, ChainLinksDecisions) {
  Decision a = Example(), b = Example();
  SealDecision(0, a);
  b.index = 3;
  SealDecision(a.chain, b);
  EXPECT_TRUE(VerifyChain(0, a).ok());
  EXPECT_TRUE(VerifyChain(a.chain, b).ok());
  EXPECT_EQ(VerifyChain(0, b).code(), absl::StatusCode::kDataLoss);
  b.parts[0].rows += 1;
  EXPECT_FALSE(VerifyChain(a.chain, b).ok());
}

TEST(Decision, ChainIgnoresTheFieldItFills) {
  Decision d = Example();
  const uint64_t chain = ChainOf(5, d);
  d.chain = 99;
  EXPECT_EQ(ChainOf(5, d), chain);
}

TEST(Decision, EveryCutIsRefusedOrBreaksTheChain) {
  Decision d = Example();
  SealDecision(1, d);
  const std::string bytes = EncodeDecision(d);
  for (size_t n = 0; n < bytes.size(); ++n) {
    const auto back = ParseDecision(absl::string_view(bytes).substr(0, n));
    if (back.ok()) {
      EXPECT_FALSE(VerifyChain(1, *back).ok()) << n;
    }
  }
}

TEST(Decision, UnknownKind) {
  Decision d = Example();
  d.kind = static_cast<DecisionKind>(99);
  EXPECT_EQ(ParseDecision(EncodeDecision(d)).status().code(), absl::StatusCode::kDataLoss);
}

TEST(Decision, UnknownFieldsAreSkipped) {
  Decision d = Example();
  const std::string newer = EncodeDecision(d) + "\x98\x06\x01";  // field 99
  const auto back = ParseDecision(newer);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(EncodeDecision(*back), EncodeDecision(d));
}

}  // namespace
}  // namespace ballast
