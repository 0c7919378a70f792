#include "join.h"

#include <algorithm>

#include "sha256.h"

namespace prectr {
namespace {

constexpr size_t kHashBytes = 16;

// What a joined click tells of its item, as MessagePack; null where the item has none.
struct ItemFields {
  View title = "\xc0", category = "\xc0", brand = "\xc0", price = "\xc0";

  ItemFields(View page, const ItemPlace& place) {
    Reader in(page.substr(place.start));
    for (size_t fields = in.map(); fields--;) {
      View name = in.text(), value = in.raw();
      if (name == "title") title = value;
      else if (name == "category") category = value;
      else if (name == "brand") brand = value;
      else if (name == "price") price = value;
    }
  }
};

}  // namespace

bool Join::ClosesEarlier::operator()(const PendingPage* a, const PendingPage* b) const {
  if (a->closes_at != b->closes_at) return a->closes_at < b->closes_at;
  if (int order = a->request_id.compare(b->request_id)) return order < 0;
  return a->user->id < b->user->id;
}

UserState& Join::make_user(View user_id) {
  if (auto found = users_.find(user_id); found != users_.end()) return *found->second;
  auto made = std::make_unique<UserState>(std::string(user_id));
  View key = made->id;
  return *users_.emplace(key, std::move(made)).first->second;
}

void Join::load_user(View user_id, View stored, bool is_accessed) {
  UserState& user = make_user(user_id);
  if (!user.loaded) user.load(stored);
  if (is_accessed) access(user);
}

void Join::access(UserState& user) {
  if (user.accessed) return;
  user.accessed = true;
  accessed_.push_back(&user);
}

// --- one record ----------------------------------------------------------------------------------------------------

void Join::process(Event& event, size_t index, View value, int64_t offset) {
  if (!event.is_valid()) {
    if (event.kind == Event::kInvalidPage) outcomes.pages++, outcomes.page_dead_letter++;
    else if (event.kind == Event::kInvalidClick) outcomes.clicks++, outcomes.click_dead_letter++;
    else outcomes.unreadable++;
    rejected.push_back({.kind = Rejected::kInvalid, .index = index});
    return;
  }
  bool is_future = clock_.observe(event.ts, event.user_id);
  run_timers();
  int64_t id = next_id_;
  if (event.kind == Event::kClick) on_click(event);
  else on_page(event, index);
  if (is_future && next_id_ != id)
    future_.push_back({id, event.ts, clock_.next_expiry(), offset, std::string(value)});
}

void Join::on_page(Event& event, size_t index) {
  UserState& user = this->user(event.user_id);
  outcomes.pages++;
  if (event.items.empty()) {
    outcomes.empty++;
    return;
  }
  Digest digest = sha256(event.encoded.data(), event.encoded.size());
  std::string hash(reinterpret_cast<const char*>(digest.data()), kHashBytes);
  PendingPage* known = user.pending_page(event.request_id);
  const std::string* known_hash =
      known ? &known->content_hash : user.closed_page_hash(event.request_id, watermark(), settings_.retention);
  if (known_hash) {
    if (*known_hash == hash) {
      outcomes.page_duplicate++;
      return;
    }
    outcomes.page_dead_letter++;
    rejected.push_back({.kind = Rejected::kConflict, .index = index, .is_known = known != nullptr,
                        .known = known ? known->encoded : "", .page = event.encoded});
    return;
  }
  int64_t closes_at = event.ts + settings_.window;
  if (closes_at <= watermark()) closes_at = watermark() + 1;
  auto page = std::make_unique<PendingPage>();
  page->id = next_id_++, page->closes_at = closes_at, page->ts = event.ts, page->user = &user;
  page->request_id = event.request_id, page->query_key = std::move(event.query_key), page->content_hash = std::move(hash);
  page->encoded = std::move(event.labelled.empty() ? event.encoded : event.labelled);
  page->levels = std::move(event.levels), page->items = std::move(event.items);
  page->labels.assign(page->items.size(), '\0');
  PendingPage& added = *page;
  user.add_pending(added);
  queue_.insert(&added);
  dirty_pages_.push_back(added.id);
  pages_.emplace(added.id, std::move(page));
  access(user);
  outcomes.open++;
  auto waiting = user.clicks.find(added.request_id);
  if (waiting == user.clicks.end()) return;
  for (PendingClick* click : std::vector<PendingClick*>(waiting->second)) {
    auto kept = std::move(clicks_.at(click->id));
    remove_click(*kept);
    join_click(kept->event(), added);
  }
}

void Join::on_click(const Event& click) {
  outcomes.clicks++;
  if (!settings_.click_actions.contains(std::string(click.has_action ? click.action : "click"))) {
    outcomes.other_action++;
    return;
  }
  UserState& user = this->user(click.user_id);
  if (PendingPage* page = user.pending_page(click.request_id)) return join_click(click, *page);
  if (user.closed_page_hash(click.request_id, watermark(), settings_.retention)) {
    outcomes.late++;
    return;
  }
  int64_t expires_at = click.ts + settings_.window;
  if (expires_at <= watermark()) {
    outcomes.orphan++;
    return;
  }
  auto pending = std::make_unique<PendingClick>(
      PendingClick{next_id_++, click.ts, &user, std::string(click.request_id), std::string(click.item_id),
                   std::string(click.action), click.has_action});
  user.clicks[pending->request_id].push_back(pending.get());
  expiries_.emplace(expires_at, pending->id);
  unwritten_clicks_.push_back(pending->id);
  clicks_.emplace(pending->id, std::move(pending));
  access(user);
  outcomes.waiting++;
}

void Join::join_click(const Event& click, PendingPage& page) {
  size_t index = 0;
  while (index < page.items.size() && page.item_id(index) != click.item_id) index++;
  if (index == page.items.size()) {
    outcomes.foreign++;
    return;
  }
  if (page.labels[index]) {
    outcomes.duplicate++;
    return;
  }
  if (click.ts > page.ts + settings_.window) {
    outcomes.late++;
    return;
  }
  outcomes.joined++;
  page.labels[index] = 1;
  if (!page.dirty) {
    page.dirty = true;
    dirty_pages_.push_back(page.id);
  }
  ItemFields item(page.encoded, page.items[index]);
  int64_t level = static_cast<uint8_t>(page.levels[index]);
  JoinedClick joined_click{click.ts, std::string(click.item_id), {}};
  Writer of_query(joined_click.encoded);
  of_query.array(6), of_query.integer(click.ts), of_query.text(click.item_id), of_query.integer(level);
  of_query.raw(item.category), of_query.raw(item.brand), of_query.raw(item.price);
  page.joined.push_back(std::move(joined_click));
  UserState& user = *page.user;
  if (!clock_.is_ahead(click.ts)) {
    user.expire(click.ts, settings_.time_to_live);
    user.mark_updated(click.ts);
  }
  std::string encoded;
  Writer of_user(encoded);
  of_user.array(9), of_user.integer(click.ts), of_user.text(click.request_id), of_user.text(click.item_id);
  of_user.text(page.query_key), of_user.raw(item.title), of_user.integer(level);
  of_user.raw(item.category), of_user.raw(item.brand), of_user.raw(item.price);
  user.add_click(click.ts, click.request_id, click.item_id, encoded, settings_.history_clicks);
  user.dirty = true;
  access(user);
}

// --- timers --------------------------------------------------------------------------------------------------------

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
