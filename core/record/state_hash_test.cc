#include "core/record/state_hash.h"

#include <string>

#include "core/record/hash.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

// From the specification of XXH3 (xxHash's own sanity checks): 64 bits, seed 0, no input.
TEST(Hash, IsXxh3WithSeedZero) { EXPECT_EQ(Hash64(""), 0x2D06800538D394C2u); }

TEST(Hash, PiecesHashLikeTheWhole) {
  const std::string bytes(10000, 'x');
  for (size_t cut : {0u, 1u, 255u, 256u, 9999u})
    EXPECT_EQ(Hasher().Add(bytes.substr(0, cut)).Add(bytes.substr(cut)).Value(), Hash64(bytes));
  EXPECT_EQ(Hasher().AddU64(0x0807060504030201u).Value(), Hash64("\x01\x02\x03\x04\x05\x06\x07\x08"));
}

TEST(StateHash, BlockIsValuesThenSlots) {
  EXPECT_EQ(BlockHash("aaaa", {"bbbb", "cccc"}), Hash64("aaaabbbbcccc"));
  EXPECT_EQ(BlockHash("aaaa", {}), Hash64("aaaa"));
}

// docs/wire_format.md section 5: values 1.0, 2.0.
TEST(StateHash, RootOfTheDocumentsExample) {
  EXPECT_EQ(RootHash({BlockHash(absl::string_view("\0\0\x80\x3f\0\0\0\x40", 8), {})}), 0x66f876d28aa23690u);
}

TEST(StateHash, RootIsOverBlockHashesInOrder) {
  const std::string bytes = std::string("\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0", 16);
  EXPECT_EQ(RootHash({1, 2}), Hash64(bytes));
  EXPECT_NE(RootHash({1, 2}), RootHash({2, 1}));
}

}  // namespace
}  // namespace ballast
