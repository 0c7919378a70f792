// The state of one query in stage `aggregate`, as `stream/aggregate/query_state.py`.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "aggregate/joined_page.h"

namespace prectr {

class QueryState {
 public:
  // half_lives in ms, which must outlive it; max_clicks: recent clicks that it keeps.
  QueryState(const std::vector<double>& half_lives, size_t max_clicks)
      : half_lives_(half_lives), max_clicks_(max_clicks) {}

  // Reads the store's entry; empty for none.
  void load(View stored);
  void write(Writer& out) const;

  void expire(int64_t ts, int64_t time_to_live);
  // Applies every page whose close time is at most `ts`.
  void apply_closed_pages(int64_t ts);
  void add_closed_page(const JoinedPage& page);

  void write_totals(Writer& out) const { totals_.write(out); }
  void write_decayed(Writer& out, int64_t ts) const;
  void write_clicks(Writer& out);

  bool accessed = false;

 private:
  static constexpr int64_t kNeverUpdated = -1;

  using Sums = std::array<double, 8>;

  struct ClosedPage {
    int64_t closes_at;
    LevelCounts counts;
    std::vector<std::string> clicks;
  };

  void apply(ClosedPage& page);

  const std::vector<double>& half_lives_;
  size_t max_clicks_;
  int64_t updated_at_ = kNeverUpdated, decayed_to_ = 0;
  LevelCounts totals_;
  std::vector<Sums> decayed_;  // one for each half-life; empty before the first page is applied
  std::deque<std::string> clicks_;
  std::deque<ClosedPage> unapplied_;
  std::string encoded_clicks_;  // of `clicks_`; empty: to be made
};

}  // namespace prectr
