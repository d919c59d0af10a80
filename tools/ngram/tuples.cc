#include "tools/ngram/tuples.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <thread>  // NOLINT: the sort's own second thread
#include <utility>

namespace ballast::ngram {
namespace {

constexpr size_t kRowsForThreads = 1 << 16;  // Below, a thread costs more than it saves.

template <int N>
void SortRowsOf(WordId* words, size_t rows) {
  using Row = std::array<WordId, N>;
  static_assert(sizeof(Row) == N * sizeof(WordId));
  Row* begin = reinterpret_cast<Row*>(words);
  if (rows < kRowsForThreads) return std::sort(begin, begin + rows);
  Row* middle = begin + rows / 2;
  std::nth_element(begin, middle, begin + rows);
  std::thread upper([=] { std::sort(middle, begin + rows); });
  std::sort(begin, middle);
  upper.join();
}

bool InOrder(const Tuples& tuples) {
  for (size_t i = 1; i < tuples.size(); ++i) {
    if (CompareWords(tuples.row(i - 1), tuples.row(i), tuples.order) >= 0) return false;
  }
  return true;
}

}  // namespace

std::vector<size_t> SuffixOrder(const std::vector<WordId>& words, int n) {
  const size_t stride = static_cast<size_t>(n);
  std::vector<size_t> places(words.size() / stride);
  std::iota(places.begin(), places.end(), size_t{0});
  const auto before = [&](size_t a, size_t b) { return CompareWords(&words[a * stride], &words[b * stride], n) < 0; };
  if (!std::is_sorted(places.begin(), places.end(), before)) std::sort(places.begin(), places.end(), before);
  return places;
}

void SortRows(int order, std::vector<WordId>& words) {
  const size_t rows = words.size() / static_cast<size_t>(order);
  switch (order) {
    case 1:
      return SortRowsOf<1>(words.data(), rows);
    case 2:
      return SortRowsOf<2>(words.data(), rows);
    case 3:
      return SortRowsOf<3>(words.data(), rows);
    case 4:
      return SortRowsOf<4>(words.data(), rows);
    case 5:
      return SortRowsOf<5>(words.data(), rows);
    case 6:
      return SortRowsOf<6>(words.data(), rows);
    case 7:
      return SortRowsOf<7>(words.data(), rows);
    case 8:
      return SortRowsOf<8>(words.data(), rows);
  }
}

void SortAndCombine(Tuples& tuples) {
  if (InOrder(tuples)) return;
  Tuples sorted{tuples.order, {}, {}};
  sorted.words.reserve(tuples.words.size());
  sorted.counts.reserve(tuples.size());
  for (const size_t i : SuffixOrder(tuples.words, tuples.order)) {
    const size_t last = sorted.size();
    if (last > 0 && CompareWords(sorted.row(last - 1), tuples.row(i), tuples.order) == 0) {
      sorted.counts[last - 1] += tuples.counts[i];
    } else {
      sorted.Add(tuples.row(i), tuples.counts[i]);
    }
  }
  tuples = std::move(sorted);
}

}  // namespace ballast::ngram
