#include "core/record/wire.h"

#include <limits>
#include <string>

#include "gtest/gtest.h"

namespace ballast {
namespace {

TEST(Wire, ReadsWhatItWrote) {
  std::string bytes;
  WireWriter w(&bytes);
  w.Varint(1, 300);
  w.Varint(2, std::numeric_limits<uint64_t>::max());
  w.Fixed32(3, 7);
  w.Fixed64(4, 8);
  w.Bytes(5, "abc");
  w.Bool(6, true);
  w.Double(7, -0.5);
  EXPECT_EQ(bytes.substr(0, 3), std::string("\x08\xac\x02", 3));  // the example of protobuf's encoding page, field 1
  WireReader in(bytes);
  uint32_t fields = 0;
  while (in.Next()) {
    ++fields;
    switch (in.field()) {
      case 1:
        EXPECT_EQ(in.Varint(), 300u);
        break;
      case 2:
        EXPECT_EQ(in.Varint(), std::numeric_limits<uint64_t>::max());
        break;
      case 3:
        EXPECT_EQ(in.Fixed32(), 7u);
        break;
      case 4:
        EXPECT_EQ(in.Fixed64(), 8u);
        break;
      case 5:
        EXPECT_EQ(in.Bytes(), "abc");
        break;
      case 6:
        EXPECT_TRUE(in.Bool());
        break;
      case 7:
        EXPECT_EQ(in.Double(), -0.5);
        break;
    }
  }
  EXPECT_TRUE(in.ok());
  EXPECT_EQ(fields, 7u);
}

TEST(Wire, DefaultsAreLeftOut) {
  std::string bytes;
  WireWriter w(&bytes);
  w.Varint(1, 0);
  w.Fixed64(2, 0);
  w.Bytes(3, "");
  w.Double(4, 0);
  EXPECT_TRUE(bytes.empty());
  w.Double(4, -0.0);  // not the default: its bits are not zero
  EXPECT_EQ(bytes.size(), 9u);
  w.Message(5, "");
  EXPECT_EQ(bytes.size(), 11u);
}

TEST(Wire, EveryCutOfAMessageIsAnErrorOrShorter) {
  std::string bytes;
  WireWriter w(&bytes);
  w.Varint(1, 1u << 20);
  w.Bytes(2, std::string(200, 'x'));
  w.Fixed64(3, 9);
  for (size_t n = 0; n < bytes.size(); ++n) {
    WireReader in(absl::string_view(bytes).substr(0, n));
    int fields = 0;
    while (in.Next()) ++fields;
    EXPECT_LT(fields, 3);
    EXPECT_EQ(in.ok(), n == 0 || n == 4 || n == 207) << n;
  }
}

void ExpectMalformed(absl::string_view bytes) {
  WireReader in(bytes);
  while (in.Next()) {
  }
  EXPECT_FALSE(in.ok());
  EXPECT_EQ(in.status("X").code(), absl::StatusCode::kDataLoss);
}

TEST(Wire, LengthBeyondTheInput) { ExpectMalformed("\x0a\xff\xff\xff\xff\x0f"); }
TEST(Wire, VarintOfMoreThan64Bits) { ExpectMalformed("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"); }
TEST(Wire, EndlessVarint) { ExpectMalformed("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"); }
TEST(Wire, FieldNumberZero) { ExpectMalformed(absl::string_view("\x00\x01", 2)); }
TEST(Wire, GroupsAreRefused) { ExpectMalformed("\x0b\x0c"); }

TEST(Wire, WrongTypeIsAnError) {
  WireReader in("\x08\x01");
  ASSERT_TRUE(in.Next());
  EXPECT_EQ(in.Bytes(), "");
  EXPECT_FALSE(in.ok());
}

TEST(Wire, Varint32RefusesMore) {
  std::string bytes;
  WireWriter(&bytes).Varint(1, uint64_t{1} << 32);
  WireReader in(bytes);
  ASSERT_TRUE(in.Next());
  EXPECT_EQ(in.Varint32(), 0u);
  EXPECT_FALSE(in.ok());
}

TEST(Wire, OpenFieldEndsTheReading) {
  std::string bytes;
  WireWriter w(&bytes);
  w.Varint(1, 5);
  w.LengthPrefix(15, 1000);
  WireReader in(bytes, 15);
  EXPECT_TRUE(in.Next());
  EXPECT_FALSE(in.Next());
  EXPECT_TRUE(in.ok());
  EXPECT_TRUE(in.opened());
  EXPECT_EQ(in.length(), 1000u);
  EXPECT_EQ(in.position(), bytes.size());
}

}  // namespace
}  // namespace ballast
