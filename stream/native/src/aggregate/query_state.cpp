#include "aggregate/query_state.h"

#include <algorithm>
#include <cmath>

namespace prectr {
namespace {

// As Python computes `2.0 ** (elapsed / half_life)`. No compiler may make another function of it.
double factor(int64_t elapsed, double half_life) {
  static double (*volatile const power)(double, double) = std::pow;
  return power(2.0, static_cast<double>(elapsed) / half_life);
}

void write_sums(Writer& out, const std::array<double, 8>& sums) {
  out.array(sums.size());
  for (double sum : sums) out.real(sum);
}

}  // namespace

void QueryState::load(View stored) {
  if (stored.empty()) return;
  Reader in(stored);
  in.array_of(6);
  updated_at_ = in.integer_in(kNeverUpdated, Reader::kMaxCount);
  totals_.read(in);
  decayed_.resize(in.array());
  if (!decayed_.empty() && decayed_.size() != half_lives_.size()) Reader::damaged();
  for (Sums& sums : decayed_) {
    in.array_of(sums.size());
    for (double& sum : sums) sum = in.real();
  }
  decayed_to_ = in.count();
  for (size_t clicks = in.array(); clicks--;) clicks_.emplace_back(in.binary());
  for (size_t pages = in.array(); pages--;) {
    in.array_of(3);
    ClosedPage& page = unapplied_.emplace_back();
    page.closes_at = in.count();
    page.counts.read(in);
    for (size_t clicks = in.array(); clicks--;) page.clicks.emplace_back(in.binary());
  }
  if (!in.done()) Reader::damaged();
}

void QueryState::write(Writer& out) const {
  out.array(6), out.integer(updated_at_);
  totals_.write(out);
  out.array(decayed_.size());
  for (const Sums& sums : decayed_) write_sums(out, sums);
  out.integer(decayed_to_);
  out.array(clicks_.size());
  for (const std::string& click : clicks_) out.binary(click);
  out.array(unapplied_.size());
  for (const ClosedPage& page : unapplied_) {
    out.array(3), out.integer(page.closes_at);
    page.counts.write(out);
    out.array(page.clicks.size());
    for (const std::string& click : page.clicks) out.binary(click);
  }
}

void QueryState::expire(int64_t ts, int64_t time_to_live) {
  if (updated_at_ == kNeverUpdated || ts - updated_at_ <= time_to_live) return;
  updated_at_ = kNeverUpdated, decayed_to_ = 0, totals_ = {};
  decayed_.clear(), clicks_.clear(), unapplied_.clear(), encoded_clicks_.clear();
}

void QueryState::apply_closed_pages(int64_t ts) {
  while (!unapplied_.empty() && unapplied_.front().closes_at <= ts) {
    apply(unapplied_.front());
    unapplied_.pop_front();
  }
}

void QueryState::apply(ClosedPage& page) {
  totals_.add(page.counts);
  if (decayed_.empty()) decayed_.resize(half_lives_.size(), Sums{});
  int64_t elapsed = std::min<int64_t>(decayed_to_ - page.closes_at, 0);
  for (size_t speed = 0; speed < decayed_.size(); speed++) {
    double by = factor(elapsed, half_lives_[speed]);
    for (size_t i = 0; i < 8; i++)
      decayed_[speed][i] = decayed_[speed][i] * by + static_cast<double>(page.counts.counts[i]);
  }
  decayed_to_ = page.closes_at;
  if (page.clicks.empty()) return;
  for (std::string& click : page.clicks) clicks_.push_back(std::move(click));
  while (clicks_.size() > max_clicks_) clicks_.pop_front();
  encoded_clicks_.clear();
}

void QueryState::add_closed_page(const JoinedPage& page) {
  ClosedPage& added = unapplied_.emplace_back(ClosedPage{page.closes_at, page.counts, {}});
  added.clicks.assign(page.clicks.begin(), page.clicks.end());
  updated_at_ = std::max(updated_at_, page.closes_at);
}

void QueryState::write_decayed(Writer& out, int64_t ts) const {
  out.array(half_lives_.size());
  for (size_t speed = 0; speed < half_lives_.size(); speed++) {
    Sums sums = decayed_.empty() ? Sums{} : decayed_[speed];
    if (!decayed_.empty() && ts > decayed_to_) {
      double by = factor(decayed_to_ - ts, half_lives_[speed]);
      for (double& sum : sums) sum *= by;
    }
    write_sums(out, sums);
  }
}

void QueryState::write_clicks(Writer& out) {
  if (encoded_clicks_.empty()) {
    Writer encoded(encoded_clicks_);
    encoded.array(clicks_.size());
    for (const std::string& click : clicks_) encoded.raw(click);
  }
  out.raw(encoded_clicks_);
}

}  // namespace prectr
