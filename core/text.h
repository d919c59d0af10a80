// Excerpts of what others sent, for error messages: a name may have megabytes, and a status travels in HTTP/2 headers of 8 KiB.
// Pure function: safe from any thread.
#ifndef BALLAST_CORE_TEXT_H_
#define BALLAST_CORE_TEXT_H_

#include <cstddef>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace ballast {

inline constexpr size_t kExcerptBytes = 200;

// `text`, or its beginning and its length. Cut between two characters: it travels as a protobuf string, which must stay UTF-8.
inline std::string Excerpt(absl::string_view text, size_t most = kExcerptBytes) {
  if (text.size() <= most) return std::string(text);
  size_t end = most;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return absl::StrCat(text.substr(0, end), "... (", text.size(), " bytes)");
}

}  // namespace ballast

#endif  // BALLAST_CORE_TEXT_H_
