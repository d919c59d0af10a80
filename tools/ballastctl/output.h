// What ballastctl prints: data to stdout (a table or JSON), messages to stderr. Colours only on a terminal without NO_COLOR.
#ifndef BALLAST_TOOLS_BALLASTCTL_OUTPUT_H_
#define BALLAST_TOOLS_BALLASTCTL_OUTPUT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace ballast::ctl {

// A table with a header row; columns are padded to their widest cell, the last one is not.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  void Print() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

std::string HumanBytes(uint64_t bytes);              // "2.9 GiB"
std::string HumanCount(uint64_t n);                  // "48 828"
std::string HumanAge(int64_t unix_ms);               // "4 min ago"
std::string FormatDouble(double value, int digits);  // "-" when NaN

void Message(const std::string& text);  // a line on stderr, less with -q
void SetQuiet(bool quiet);

}  // namespace ballast::ctl

#endif  // BALLAST_TOOLS_BALLASTCTL_OUTPUT_H_
