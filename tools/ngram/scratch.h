// A folder for intermediate files that goes away with its object. One thread at a time.
#ifndef BALLAST_TOOLS_NGRAM_SCRATCH_H_
#define BALLAST_TOOLS_NGRAM_SCRATCH_H_

#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace ballast::ngram {

class Scratch {
 public:
  // Inside of `parent`, which must be there.
  static absl::StatusOr<std::unique_ptr<Scratch>> Create(const std::string& parent) {
    std::string path = absl::StrCat(parent, "/ballast-ngram.XXXXXX");
    if (mkdtemp(path.data()) == nullptr) return absl::UnavailableError(absl::StrCat("cannot make a folder in ", parent));
    return std::unique_ptr<Scratch>(new Scratch(path));
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  const std::string& path() const { return path_; }

 private:
  explicit Scratch(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_SCRATCH_H_
