#include "join/operator.h"

#include "codec/sha256.h"

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

}  // namespace prectr
