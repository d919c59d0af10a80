#include "server/storage/segment_prefetch.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/storage/files.h"
#include "tests/support/fresh_dir.h"

namespace ballast {
namespace {

std::string WriteBytes(const std::string& name, size_t bytes, char first) {
  static const std::string folder = FreshDir();
  const std::string path = folder + "/" + name;
  std::string content(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) content[i] = static_cast<char>(first + static_cast<char>(i % 61));
  EXPECT_TRUE(WriteFileAtomically(path, content).ok());
  return path;
}

TEST(SegmentPrefetch, FilesOfEverySizeComeWholeAndInOrder) {
  const std::vector<size_t> sizes = {0, 1, 4095, 4096, 4097, 3u << 20, (9u << 20) + 5, 64};  // also across several reads
  std::vector<std::string> paths;
  for (size_t i = 0; i < sizes.size(); ++i) paths.push_back(WriteBytes(std::to_string(i), sizes[i], static_cast<char>('a' + i)));
  SegmentPrefetch prefetch(paths, /*sync_first=*/true);
  for (const std::string& path : paths) {
    absl::StatusOr<FileBytes> bytes = prefetch.Next();
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_TRUE(bytes->view() == ReadFile(path).value()) << path;
    prefetch.Reuse(*std::move(bytes));
  }
}

TEST(SegmentPrefetch, AFileThatIsGoneIsNamed) {
  const std::string there = WriteBytes("there", 100, 'a');
  SegmentPrefetch prefetch({there, there + "-gone"}, /*sync_first=*/false);
  EXPECT_TRUE(prefetch.Next().ok());
  const absl::Status gone = prefetch.Next().status();
  EXPECT_FALSE(gone.ok());
  EXPECT_NE(gone.message().find("there-gone"), absl::string_view::npos) << gone;
}

TEST(SegmentPrefetch, WhoeverStopsHalfwayDoesNotWaitForTheRest) {
  const std::string path = WriteBytes("again", 1 << 20, 'a');
  SegmentPrefetch prefetch(std::vector<std::string>(100, path), /*sync_first=*/false);
  EXPECT_TRUE(prefetch.Next().ok());
}

}  // namespace
}  // namespace ballast
