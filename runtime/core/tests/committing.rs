//! When a commit is sent, what it contains, and the effect of its responses.

mod shell;

use std::time::Duration;

use keylane_core::{CommitError, Config, Input, Notice};
use shell::{P0, P1, REQUEST, Shell, start};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_final_commit_is_sent_although_an_older_one_was_rejected() {
    for why in [CommitError::Stale, CommitError::Other] {
        let mut shell = Shell::reading(Config::default(), &[P0], 4);
        shell.fetch(P0, &[(0, 1), (1, 2)]);
        shell.end(&[]);
        let older = shell.commit();
        shell.end(&[]);
        shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
        shell.give(Input::CommitFailed { id: older.id, partition: P0, why });
        assert!(shell.revoked.is_empty(), "{why:?}: offset 1 was never in a commit");
        assert_eq!(shell.store().offset_of(P0), Some(2));
        assert_eq!(shell.revoked, [[P0]]);
    }
}

#[test]
fn a_final_commit_that_is_rejected_permanently_ends_the_ownership() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    shell.fetch(P0, &[(0, 1)]);
    shell.end(&[]);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    shell.reject_commit(CommitError::Stale);
    assert_eq!(shell.revoked, [[P0]]);
}

#[test]
fn a_final_commit_does_not_wait_for_the_commit_interval_after_a_rejection() {
    let config = Config { commit_interval: Duration::from_secs(10), ..Config::default() };
    let mut shell = Shell::reading(config.clone(), &[P0], 4);
    shell.fetch(P0, &[(0, 1), (1, 2)]);
    shell.end(&[]);
    shell.reject_commit(CommitError::Other);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    let revoked_at = shell.uptime;
    shell.end(&[]);
    assert!(
        shell.commit().at < revoked_at + millis(500),
        "the ownership waits at most {:?}",
        config.commit_timeout
    );
}

#[test]
fn a_commit_with_a_retriable_error_is_sent_again_until_the_deadline() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    shell.fetch(P0, &[(0, 1)]);
    shell.end(&[]);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    let revoked_at = shell.uptime;
    let mut rejected = 0;
    while shell.revoked.is_empty() {
        match shell.commits.is_empty() {
            true => shell.wait(millis(20)),
            false => {
                shell.reject_commit(CommitError::TryAgain);
                rejected += 1;
            }
        }
    }
    assert!(rejected > 10, "{rejected}");
    let waited = shell.uptime - revoked_at;
    assert!(waited >= millis(2000) && waited < millis(2100), "{waited:?}");
}

#[test]
fn a_timeout_is_not_a_success() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    shell.fetch(P0, &[(0, 1)]);
    shell.end(&[]);
    let first = shell.commit();
    shell.give(Input::CommitTimedOut { id: first.id });
    let second = shell.commit();
    assert_eq!(second.offset_of(P0), Some(1));
    shell.give(Input::Committed { id: first.id, partition: P0 });
    shell.give(Input::CommitTimedOut { id: second.id });
    assert_eq!(
        shell.store().offset_of(P0),
        Some(1),
        "a late response to a commit that timed out does not count"
    );
}

#[test]
fn events_that_settle_while_a_commit_is_in_flight_are_committed_next() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    shell.fetch(P0, &[(0, 1), (1, 2)]);
    shell.end(&[]);
    let first = shell.commit();
    shell.end(&[]);
    assert!(shell.commits.is_empty(), "a commit is in flight");
    shell.give(Input::Committed { id: first.id, partition: P0 });
    assert_eq!(shell.store().offset_of(P0), Some(2));
}

#[test]
fn the_metadata_limit_is_halved_once_per_commit() {
    let partitions = [P0, P1];
    let mut shell = Shell::reading(Config::default(), &partitions, 8);
    for partition in partitions {
        shell.fetch(partition, &[(0, 1), (1, 2)]);
    }
    shell.calls.rotate_left(1);
    let first_events: Vec<_> = shell.calls.iter().filter(|call| call.rows[0].1 == 1).cloned().collect();
    assert_eq!(first_events.len(), 2);
    shell.calls = first_events;
    shell.end_all();
    shell.notices.clear();
    let rejected = shell.reject_commit(CommitError::MetadataTooLarge);
    assert!(rejected.sets.iter().all(|set| !set.is_empty()), "{rejected:?}");
    let lowered: Vec<_> =
        shell.notices.iter().filter(|notice| matches!(notice, Notice::MetadataLimitLowered { .. })).collect();
    assert_eq!(lowered.len(), 1, "{lowered:?}");
    let again = shell.commit();
    assert!(again.at - rejected.at < millis(100), "the commit must be repeated immediately");
    assert!(again.sets.iter().zip(&rejected.sets).all(|(new, old)| new.len() < old.len()), "{again:?}");
}

#[test]
fn a_commit_without_a_set_that_is_too_large_is_not_sent_again_immediately() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    shell.fetch(P0, &[(0, 1)]);
    shell.end(&[]);
    let rejected = shell.reject_commit(CommitError::MetadataTooLarge);
    assert_eq!(rejected.sets, [""]);
    assert!(shell.commit().at - rejected.at >= Config::default().commit_interval);
}

#[test]
fn an_unchanged_partition_is_committed_again_periodically() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    let begin = shell.uptime;
    let commit = shell.store();
    assert!(commit.at - begin >= Duration::from_secs(59), "{commit:?}");
    assert_eq!(commit.offset_of(P0), Some(0));
}

#[test]
fn responses_to_commits_of_an_older_ownership_do_not_count() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    shell.fetch(P0, &[(0, 1)]);
    shell.end(&[]);
    let old = shell.commit();
    shell.give(Input::Lost { request: REQUEST, partitions: &[P0] });
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.start_at(P0, 0, b"");
    shell.fetch(P0, &[(0, 1)]);
    shell.give(Input::Committed { id: old.id, partition: P0 });
    shell.end(&[]);
    assert_eq!(shell.store().offset_of(P0), Some(1));
}

#[test]
fn a_start_that_is_not_committed_is_sent_again_before_anything_is_read() {
    let mut shell = Shell::new(Config::default());
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.give(Input::StartResolved { partition: P0, start: start() });
    for why in [CommitError::TryAgain, CommitError::Other, CommitError::Stale] {
        shell.reject_commit(why);
        assert!(shell.reads.is_empty(), "{why:?}");
    }
    let timed_out = shell.commit();
    shell.give(Input::CommitTimedOut { id: timed_out.id });
    shell.store();
    assert_eq!(shell.reads, [P0]);
}

#[test]
fn a_set_read_from_the_commit_leads_to_a_commit_without_it() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    shell.fetch(P0, &[(0, 1), (1, 2)]);
    shell.calls.remove(0);
    shell.end(&[]);
    let left = shell.store();
    assert_eq!(left.offset_of(P0), Some(0));
    let mut next = Shell::new(Config::default());
    next.give(Input::CapacityAdded { calls: 4 });
    next.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    next.start_at(P0, 0, left.sets[0].as_bytes());
    next.fetch(P0, &[(0, 1), (1, 2)]);
    assert_eq!(next.calls.len(), 1, "offset 1 is claimed");
    next.end(&[]);
    let commit = next.store();
    assert_eq!((commit.offset_of(P0), commit.sets[0].as_str()), (Some(2), ""));
}

#[test]
fn a_commit_counts_the_settled_events_that_its_set_does_not_claim() {
    let mut shell = Shell::reading(Config { metadata_limit: 0, ..Config::default() }, &[P0], 4);
    shell.fetch(P0, &[(0, 1), (1, 2), (2, 3)]);
    shell.calls.remove(0);
    shell.end_all();
    let commit = shell.store();
    assert_eq!((commit.entries[0].unclaimed, commit.sets[0].as_str()), (2, ""));
}
