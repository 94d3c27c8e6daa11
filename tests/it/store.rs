//! The store's contract, kept by every engine: each promise of the suite runs against each of them.

mod changes;
mod endpoints;
mod migration;
mod model;
mod queues;
mod redis;
mod schedule;
mod sqlite;
mod suite;

use std::sync::Arc;

use avatar_proxy::change::{Change, Circumstances, Kind, Standing, State, observe};
use avatar_proxy::clock::Timestamp;
use avatar_proxy::entry::{Entry, Jitter};
use avatar_proxy::jid::{Device, Jid, Key};
use avatar_proxy::outcome::{Observation, Outcome, Picture, Rules, Token};
use avatar_proxy::recheck::Outlook;
use avatar_proxy::recheck::activity::Activity;
use avatar_proxy::recheck::rate::Evidence;
use avatar_proxy::recheck::turn::Turn;
use avatar_proxy::store::{Applied, Held, Write};

/// A store and its log.
type Opened = Arc<dyn avatar_proxy::store::Engine>;

/// Where an engine keeps its records while its stores come and go.
trait Engine {
    /// How many stores may be open on one place.
    const REPLICAS: usize;

    /// Whether what was taken by a process that is gone stays under lease.
    const LEASES_STAY: bool;

    /// An empty place.
    fn new() -> Self;

    /// Opens a store on what is there.
    async fn open(&self) -> Opened;
}

macro_rules! held_by {
    ($name:ident, $engine:ty, $($suite:ident::$promise:ident),*) => {
        mod $name {
            use super::Engine;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    super::$suite::$promise(<$engine>::new()).await;
                }
            )*

            #[test]
            fn behaves_as_the_model() {
                super::model::behaves_as_the_model(&<$engine>::new());
            }
        }
    };
}

macro_rules! every_engine {
    ($($suite:ident::$promise:ident),* $(,)?) => {
        held_by!(on_sqlite, super::sqlite::File, $($suite::$promise),*);
        held_by!(on_redis, super::redis::Keys, $($suite::$promise),*);
    };
}

every_engine! {
    suite::nothing_is_held_at_first,
    suite::what_was_applied_is_found,
    suite::who_computed_from_an_old_revision_is_given_the_present,
    suite::of_many_writes_from_one_revision_exactly_one_wins,
    suite::many_writers_that_try_again_all_get_through,
    suite::a_look_starts_after_what_it_was_given_and_ends_after_it_starts,
    suite::tokens_grow_over_a_restart,
    suite::a_restart_keeps_everything,
    suite::a_store_that_was_dropped_has_lost_nothing,
    schedule::due_keys_come_in_order_and_under_a_lease,
    schedule::a_taker_that_dies_loses_nothing,
    schedule::a_key_can_be_taken_off_the_schedule_and_a_request_brings_it_back,
    schedule::keys_that_are_not_held_are_passed_over,
    schedule::a_look_at_another_variant_can_be_asked_for,
    schedule::siblings_are_due_at_once_when_the_picture_changed,
    suite::a_request_is_never_moved_back,
    suite::devices_and_variants_are_kept_apart,
    suite::idle_keys_go_with_their_state,
    suite::forgetting_is_bounded,
    suite::what_nobody_asked_for_stays_while_it_is_looked_at,
    suite::a_forgotten_subject_begins_anew,
    suite::devices_are_remembered,
    suite::sizes_are_told,
    suite::a_closed_store_answers_no_more,
    schedule::of_those_who_may_be_rechecked_the_smallest_rank_is_next,
    schedule::a_device_has_a_schedule_and_a_virtual_time_of_its_own,
    schedule::a_recheck_is_told_what_is_held_of_each_picture,
    schedule::a_look_of_any_kind_is_the_recheck_of_all_pictures,
    schedule::a_recheck_can_be_put_off_ended_and_asked_for_again,
    schedule::whoever_is_heard_of_moves_ahead_unless_looked_at_meanwhile,
    schedule::who_is_watched_and_was_never_looked_at_comes_after_whose_turn_has_come,
    schedule::what_will_be_needed_is_foreseen,
    schedule::a_believed_negative_outcome_has_no_deadline,
    schedule::lessons_are_remembered,
    changes::the_log_is_read_from_any_place,
    changes::the_log_is_trimmed_at_its_oldest_end,
    changes::a_watch_is_part_of_what_is_held,
    changes::watches_are_listed_in_pages,
    changes::who_is_watched_is_not_idle,
    changes::who_is_forgotten_leaves_nothing_but_that,
    changes::a_look_that_began_before_is_turned_away,
    endpoints::an_endpoint_is_kept_as_it_was_put,
    endpoints::there_are_no_more_endpoints_than_may_be,
    endpoints::who_changes_an_endpoint_does_not_move_its_cursor,
    endpoints::deliveries_are_kept_until_they_end,
    endpoints::a_dropped_endpoint_leaves_nothing,
    endpoints::dead_deliveries_can_be_revived,
    endpoints::dead_deliveries_are_dropped_when_they_are_too_old,
    endpoints::who_is_forgotten_is_delivered_to_nobody,
    endpoints::webhooks_outlast_a_restart,
    endpoints::what_an_endpoint_is_and_how_it_stands_change_together,
    endpoints::a_lease_is_one_holders_who_fences_off_those_before,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_700_000_000 + seconds)
}

fn key_of(device: &str, who: &str, preview: bool, community: bool) -> Key {
    Key::new(Device::new(device).unwrap(), Jid::parse(who).unwrap(), preview, community)
}

pub(crate) fn full(who: &str) -> Key {
    key_of("", who, false, false)
}

fn preview(who: &str) -> Key {
    key_of("", who, true, false)
}

/// What a look that saw picture `id` leaves behind: the entry and the state.
fn look(id: u64, start: Token, due: Timestamp) -> (Entry, State) {
    let rules = Rules::default();
    let seen = Observation {
        variant: avatar_proxy::jid::Variant::default(),
        outcome: Outcome::Present(Picture::new(&format!("https://h/{id}.jpg?oe=7FFFFFFF"), &id.to_string(), "image")),
        start,
        started_at: at(0),
        ended_at: at(0),
    };
    let around =
        Circumstances { applied: Token(0), device_succeeded_at: None, entropy: u128::from(id) << 70, rules: &rules };
    let state = observe(&State::default(), &seen, around).state;
    let mut entry = Entry::after(None, &seen, Standing::Believed { repeats: 0 }, &rules, Jitter(0.5));
    entry.due_at = due;
    (entry, state)
}

/// The plainest write: picture `id`, due after `due` seconds.
pub(crate) fn write(key: &Key, expected: Token, id: u64, due: i64) -> Write {
    let (entry, state) = look(id, Token(id), at(due));
    Write {
        key: key.clone(),
        start: Token(u64::MAX),
        expected,
        state,
        entry,
        outlook: outlook(due),
        recheck_at: at(due),
        change: None,
        requested_at: None,
        also_due: None,
        siblings_due: None,
        flown: false,
    }
}

/// What is known of somebody, as far as rechecks go: they stand at this rank.
pub(crate) fn outlook(rank: i64) -> Outlook {
    #[allow(clippy::cast_precision_loss)] // small
    let turn = Turn { began: 0.0, rank: rank as f64 };
    Outlook { evidence: Evidence::default(), looked_at: at(0), turn, activity: Activity::default() }
}

pub(crate) fn change(event: &str, version: u64) -> Change {
    Change {
        event_id: event.into(),
        kind: Kind::Changed,
        reason: None,
        old_id: Some("1".into()),
        new_id: Some("2".into()),
        version,
        noticed_at: at(9),
        not_before: at(3),
    }
}

async fn done(store: &Opened, write: Write) -> Token {
    match store.apply(write).await.unwrap() {
        Applied::Done(token) => token,
        Applied::Conflict(held) => panic!("somebody was faster: {held:?}"),
        Applied::Forgotten | Applied::Late => panic!("nobody was forgotten or late"),
    }
}

async fn conflict(store: &Opened, write: Write) -> Held {
    match store.apply(write).await.unwrap() {
        Applied::Conflict(held) => *held,
        other => panic!("{other:?} was computed from an old revision"),
    }
}
