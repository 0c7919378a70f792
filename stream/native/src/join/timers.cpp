// What stage `join` does as its watermark advances: pages close, clicks expire, future events are rejected.
#include <algorithm>

#include "join/operator.h"

namespace prectr {

void Join::run_timers() {
  int64_t watermark = clock_.watermark(), next = next_close();
  if (!expiries_.empty()) next = std::min(next, expiries_.begin()->first);
  if (!future_.empty()) next = std::min(next, clock_.watermark_at(future_.front().expires_at));
  if (watermark < next) return;
  expire_future();
  while (next_close() <= watermark) close(**queue_.begin());
  expire_clicks(watermark);
}

void Join::flush() {
  while (!queue_.empty()) close(**queue_.begin());
  expire_clicks(kMaxWatermark);
  for (const FutureEvent& event : future_) {
    if (event.stored) deleted_.push_back(store_key('f', event.id));
  }
  future_.clear();
}

void Join::close(PendingPage& page) {
  UserState& user = *page.user;
  user.dirty = true;
  access(user);
  // Removed first: the clicks that are kept are those since the oldest page that is still pending.
  auto kept = std::move(pages_.at(page.id));
  remove(page);
  user.expire(page.ts, settings_.time_to_live);
  user.apply_closed_pages(page.ts);
  LevelCounts counts = count_levels(page.levels, page.labels);
  std::sort(page.joined.begin(), page.joined.end());
  write_joined(page, counts);
  user.add_closed_page(page, counts, settings_.history_clicks);
  outcomes.open--;
  outcomes.emitted++;
}

void Join::write_joined(const PendingPage& page, const LevelCounts& counts) {
  UserState& user = *page.user;
  std::string history;
  Writer clicks(history);
  int64_t activity = user.write_history(clicks, page.ts, settings_.history_clicks);
  std::string& record = joined.emplace_back();
  record.reserve(page.encoded.size() + history.size() + 512);
  Writer out(record);
  out.array(13), out.integer(page.closes_at), out.text(page.request_id), out.text(user.id), out.integer(page.ts);
  out.text(page.query_key), out.binary(page.labels), out.binary(page.levels);
  counts.write(out);
  out.integer(activity);
  user.apply_closed_pages(page.ts).write(out);
  out.raw(history), out.raw(page.encoded);
  out.array(page.joined.size());
  for (const JoinedClick& click : page.joined) out.binary(click.encoded);
}

void Join::remove(PendingPage& page) {
  page.user->remove_pending(page);
  queue_.erase(&page);
  if (page.stored) deleted_.push_back(store_key('p', page.id));
  pages_.erase(page.id);
}

void Join::expire_clicks(int64_t watermark) {
  while (!expiries_.empty() && expiries_.begin()->first <= watermark) {
    auto kept = std::move(clicks_.at(expiries_.begin()->second));
    remove_click(*kept);
    outcomes.orphan++;
  }
}

// The caller has taken the click itself out of the map.
void Join::remove_click(PendingClick& click) {
  auto waiting = click.user->clicks.find(click.request_id);
  std::erase(waiting->second, &click);
  if (waiting->second.empty()) click.user->clicks.erase(waiting);
  expiries_.erase({click.ts + settings_.window, click.id});
  if (click.stored) deleted_.push_back(store_key('w', click.id));
  clicks_.erase(click.id);
  access(*click.user);
  outcomes.waiting--;
}

void Join::expire_future() {
  while (!future_.empty() && future_.front().expires_at <= clock_.progress()) {
    FutureEvent event = std::move(future_.front());
    future_.pop_front();
    if (event.stored) deleted_.push_back(store_key('f', event.id));
    if (clock_.is_ahead(event.ts)) reject_future(event);
  }
}

void Join::reject_future(const FutureEvent& event) {
  auto reject = [&] {
    rejected.push_back({.kind = Rejected::kFuture, .offset = event.offset, .ts = event.ts,
                        .lead = clock_.lead(event.ts), .value = event.value});
  };
  if (auto found = pages_.find(event.id); found != pages_.end()) {
    auto kept = std::move(found->second);
    remove(*kept);
    kept->user->dirty = true;
    access(*kept->user);
    kept->user->evict_clicks(settings_.history_clicks);
    outcomes.open--;
    outcomes.page_dead_letter++;
    reject();
  }
  if (auto found = clicks_.find(event.id); found != clicks_.end()) {
    auto kept = std::move(found->second);
    remove_click(*kept);
    outcomes.click_dead_letter++;
    reject();
  }
}

std::pair<int64_t, int64_t> Join::future_events() const {
  int64_t count = 0, largest = 0;
  if (clock_.has_settled())
    for (const FutureEvent& event : future_)
      if (clock_.is_ahead(event.ts)) count++, largest = std::max(largest, clock_.lead(event.ts));
  return {count, largest};
}

}  // namespace prectr
