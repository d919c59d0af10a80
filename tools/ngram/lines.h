// Lines of a file, of any length. One thread at a time.
#ifndef BALLAST_TOOLS_NGRAM_LINES_H_
#define BALLAST_TOOLS_NGRAM_LINES_H_

#include <algorithm>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tools/ngram/file.h"

namespace ballast::ngram {

class LineReader {
 public:
  // `file` must outlive the reader.
  explicit LineReader(InputFile& file) : file_(file) {}

  // The next line without its LF; a last line without LF counts. False at the end.
  absl::StatusOr<bool> Next(std::string& line) {
    line.clear();
    while (true) {
      if (rest_.empty()) {
        absl::StatusOr<absl::string_view> some = file_.ReadSome();
        if (!some.ok()) return some.status();
        rest_ = *some;
        if (rest_.empty()) return !line.empty();
      }
      const size_t end = rest_.find('\n');
      line.append(rest_.data(), std::min(end, rest_.size()));
      rest_.remove_prefix(end == absl::string_view::npos ? rest_.size() : end + 1);
      if (end != absl::string_view::npos) return true;
    }
  }

 private:
  InputFile& file_;
  absl::string_view rest_;
};

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_LINES_H_
