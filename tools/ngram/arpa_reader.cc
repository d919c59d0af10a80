// Model::LoadArpa: ARPA files, ours and those of other toolkits.
#include <charconv>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "tools/ngram/lines.h"
#include "tools/ngram/model.h"
#include "tools/ngram/sentences.h"

namespace ballast::ngram {
namespace {

class ArpaReader {
 public:
  ArpaReader(InputFile& file, const std::string& path) : lines_(file), path_(path) {}

  absl::StatusOr<Model> Read() {
    if (absl::Status read = ReadHead(); !read.ok()) return read;
    for (int n = 1; n <= static_cast<int>(announced_.size()); ++n) {
      if (absl::Status read = ReadOrder(n); !read.ok()) return read;
    }
    Model model(static_cast<int>(announced_.size()), std::move(vocabulary_));
    for (const ModelOrder& order : orders_) {
      for (size_t i = 0; i < order.size(); ++i) model.Add(order.n, order.row(i), order.log_p[i], order.log_backoff[i]);
    }
    if (absl::Status finished = model.Finish(); !finished.ok()) return finished;
    const WordId unk = kUnk;
    if (model.Find(1, &unk) == Model::kMissing) return absl::DataLossError(absl::StrCat(path_, " has no unigram <unk>"));
    return model;
  }

 private:
  absl::Status Wrong(absl::string_view what) const { return absl::DataLossError(absl::StrCat(path_, " line ", number_, ": ", what)); }

  // The next line that is not empty; an error at the end of the file.
  absl::Status NextLine() {
    do {
      absl::StatusOr<bool> more = lines_.Next(line_);
      if (!more.ok()) return more.status();
      ++number_;
      if (!*more) return Wrong("the ARPA file is cut off");
      if (!line_.empty() && line_.back() == '\r') line_.pop_back();
    } while (line_.empty());
    return absl::OkStatus();
  }

  absl::Status ReadHead() {
    do {
      if (absl::Status read = NextLine(); !read.ok()) return read;
    } while (line_ != "\\data\\");
    while (true) {
      if (absl::Status read = NextLine(); !read.ok()) return read;
      absl::string_view rest = line_;
      if (!absl::ConsumePrefix(&rest, "ngram ")) break;
      uint64_t rows;
      if (!absl::ConsumePrefix(&rest, absl::StrCat(announced_.size() + 1, "=")) || !absl::SimpleAtoi(rest, &rows))
        return Wrong("want ngram N=ROWS");
      announced_.push_back(rows);
    }
    if (announced_.empty() || announced_.size() > static_cast<size_t>(kOrderMax))
      return Wrong(absl::StrCat("orders 1 to ", kOrderMax, " are possible"));
    return absl::OkStatus();
  }

  absl::Status ReadOrder(int n) {
    if (line_ != absl::StrCat("\\", n, "-grams:")) return Wrong(absl::StrCat("want \\", n, "-grams:"));
    orders_.emplace_back();
    orders_.back().n = n;
    while (true) {
      if (absl::Status read = NextLine(); !read.ok()) return read;
      if (line_[0] == '\\' && (line_ == "\\end\\" || absl::EndsWith(line_, "-grams:"))) break;
      if (absl::Status read = ReadRow(orders_.back()); !read.ok()) return read;
    }
    if (orders_.back().size() == announced_[static_cast<size_t>(n - 1)]) return absl::OkStatus();
    return Wrong(absl::StrCat(orders_.back().size(), " ", n, "-grams, the head says ", announced_[static_cast<size_t>(n - 1)]));
  }

  absl::Status ReadRow(ModelOrder& order) {
    fields_.clear();
    ForEachWord(line_, [this](absl::string_view field) { fields_.push_back(field); });
    const size_t n = static_cast<size_t>(order.n);
    double log_p = 0, log_backoff = 0;
    const bool sized = fields_.size() == n + 1 || fields_.size() == n + 2;
    if (!sized || !ParseNumber(fields_[0], log_p) || (fields_.size() == n + 2 && !ParseNumber(fields_[n + 1], log_backoff)))
      return Wrong("want log10 p, the words, and log10 backoff if there is one");
    for (size_t i = n; i >= 1; --i) {
      if (n > 1 && vocabulary_.Find(fields_[i]) == kUnk && fields_[i] != "<unk>") return Wrong(absl::StrCat(fields_[i], " is no unigram"));
      order.words.push_back(vocabulary_.Add(fields_[i]));
    }
    order.log_p.push_back(log_p);
    order.log_backoff.push_back(log_backoff);
    return absl::OkStatus();
  }

  static bool ParseNumber(absl::string_view text, double& value) {
    const std::from_chars_result parsed = std::from_chars(text.data(), text.data() + text.size(), value);
    return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
  }

  LineReader lines_;
  const std::string path_;
  std::string line_;
  uint64_t number_ = 0;
  std::vector<absl::string_view> fields_;
  std::vector<uint64_t> announced_;
  Vocabulary vocabulary_;
  std::vector<ModelOrder> orders_;
};

}  // namespace

absl::StatusOr<Model> Model::LoadArpa(const std::string& path) {
  absl::StatusOr<std::unique_ptr<InputFile>> file = InputFile::Open(path);
  if (!file.ok()) return file.status();
  return ArpaReader(**file, path).Read();
}

}  // namespace ballast::ngram
