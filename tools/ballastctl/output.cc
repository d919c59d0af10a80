#include "tools/ballastctl/output.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "absl/strings/str_format.h"

namespace ballast::ctl {
namespace {

bool quiet = false;

bool Colours() {
  const char* term = std::getenv("TERM");
  return isatty(STDOUT_FILENO) && std::getenv("NO_COLOR") == nullptr && term != nullptr && std::string(term) != "dumb";
}

}  // namespace

void Table::Print() const {
  std::vector<size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  const bool colours = Colours();
  for (size_t r = 0; r < rows_.size(); ++r) {
    std::string line;
    for (size_t i = 0; i < rows_[r].size(); ++i) {
      line += rows_[r][i];
      if (i + 1 < rows_[r].size()) line.append(widths[i] - rows_[r][i].size() + 2, ' ');
    }
    const bool header = r == 0 && colours;
    std::printf("%s%s%s\n", header ? "\033[1m" : "", line.c_str(), header ? "\033[0m" : "");
  }
}

std::string HumanBytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) value /= 1024, ++unit;
  return unit == 0 ? absl::StrFormat("%d B", bytes) : absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string HumanCount(uint64_t n) {
  std::string digits = std::to_string(n), out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += ' ';
    out += digits[i];
  }
  return out;
}

std::string HumanAge(int64_t unix_ms) {
  const int64_t seconds = std::max<int64_t>(0, static_cast<int64_t>(std::time(nullptr)) - unix_ms / 1000);
  if (seconds < 60) return absl::StrFormat("%d s ago", seconds);
  if (seconds < 3600) return absl::StrFormat("%d min ago", seconds / 60);
  if (seconds < 48 * 3600) return absl::StrFormat("%d h ago", seconds / 3600);
  return absl::StrFormat("%d days ago", seconds / 86400);
}

std::string FormatDouble(double value, int digits) { return std::isnan(value) ? "-" : absl::StrFormat("%.*f", digits, value); }

void SetQuiet(bool value) { quiet = value; }

void Message(const std::string& text) {
  if (!quiet) std::fprintf(stderr, "%s\n", text.c_str());
}

}  // namespace ballast::ctl
