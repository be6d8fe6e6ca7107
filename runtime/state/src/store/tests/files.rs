//! Which files are used again.

use std::os::unix::fs::FileExt;

use redb::ReadableTable as _;

use super::*;

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("3.redb")
}

#[test]
fn values_survive_a_close() {
    let dir = TempDir::new("close");
    let mut store = Store::new(&dir);
    assert_eq!(store.opened(), (None, None));
    store.apply(vec![entry("ada", Some("1")), entry("bob", Some("2")), entry("eve", Some("3"))], None);
    store.apply(vec![entry("bob", None), entry("ada", Some("4"))], Some(7));
    store.at_log_end();
    store.check_values(&["ada", "bob", "eve", "none"], &[Some("4"), None, Some("3"), None]);
    store.close();
    assert_eq!(store.opened(), (Some(7), None));
    store.check_values(&["ada", "bob", "eve", "none"], &[Some("4"), None, Some("3"), None]);
}

#[test]
fn a_killed_process_leaves_a_file_that_is_behind_and_not_ahead() {
    let dir = TempDir::new("kill");
    let mut store = Store::new(&dir);
    store.opened();
    store.apply(vec![entry("ada", Some("1"))], Some(7));
    store.at_log_end();
    store.apply(vec![entry("ada", Some("2"))], Some(8));
    assert_eq!(store.advance(Duration::from_secs(10)), [], "written after 10 s");
    store.apply(vec![entry("ada", Some("3")), entry("bob", Some("1"))], Some(9));
    store.check_values(&["ada", "bob"], &[Some("3"), Some("1")]);
    store.partitions.crash();
    assert_eq!(store.opened(), (Some(8), None));
    store.check_values(&["ada", "bob"], &[Some("2"), None]);
}

#[test]
fn only_the_end_of_the_log_renews_the_time_of_completeness() {
    let dir = TempDir::new("continued");
    let mut store = Store::new(&dir);
    store.fill(7);
    store.advance(Duration::from_secs(3000));
    assert_eq!(store.opened(), (Some(7), None));
    store.apply(vec![], Some(8));
    store.check_values(&["ada"], &[Some("1")]);
    store.close();
    store.advance(Duration::from_secs(599));
    assert_eq!(store.opened(), (Some(8), None));
    store.close();
    store.advance(Duration::from_secs(1));
    let note = "it was last complete 3600 s ago, and the limit is 3600 s";
    assert_eq!(store.opened(), (None, Some(note.to_owned())));
    store.check_values(&["ada"], &[None]);
}

/// A partition without events must not grow old while it is owned, even if the process is killed.
#[test]
fn the_time_of_completeness_is_written_without_entries() {
    let dir = TempDir::new("idle");
    let mut store = Store::new(&dir);
    store.fill(7);
    assert_eq!(store.opened(), (Some(7), None));
    for _ in 0..20 {
        store.advance(Duration::from_secs(450));
        store.at_log_end();
        store.advance(Duration::from_secs(10));
    }
    store.partitions.crash();
    assert_eq!(store.opened(), (Some(7), None));
}

#[test]
fn another_topic_or_an_unknown_one_is_not_used() {
    let dir = TempDir::new("identity");
    let mut store = Store::new(&dir);
    let recreated = FileIdentity { input_id: Some([9; 16]), ..IDENTITY };
    let unknown = FileIdentity { changelog_id: None, ..IDENTITY };
    for identity in [recreated, unknown] {
        store.fill(7);
        match store.open_as(3, identity).as_slice() {
            [StoreEvent::Opened { resume: None, note: Some(_), .. }] => {}
            events => panic!("{events:?}"),
        }
        store.check_values(&["ada"], &[None]);
        fs::remove_file(file(&dir)).expect("the file is in its place");
        store.close();
    }
}

#[test]
fn a_file_that_was_deleted_is_made_again() {
    let dir = TempDir::new("deleted");
    let mut store = Store::new(&dir);
    store.fill(7);
    fs::remove_dir_all(dir.path()).expect("a folder");
    assert_eq!(store.opened(), (None, None));
}

/// Fills a file with several pages, changes it, and checks that it is not used. Returns the note.
fn check_damaged(name: &str, damage: impl Fn(&fs::File, u64)) -> String {
    let dir = TempDir::new(name);
    let mut store = Store::new(&dir);
    store.opened();
    let entries = (0..2000).map(|number| entry(&format!("key-{number}"), Some("a value of a key")));
    store.apply(entries.collect(), Some(7));
    store.at_log_end();
    store.close();
    let opened = fs::OpenOptions::new().write(true).read(true).open(file(&dir)).expect("a file");
    damage(&opened, opened.metadata().expect("metadata").len());
    let (resume, note) = store.opened();
    assert_eq!(resume, None, "{name}");
    store.check_values(&["key-1", "key-1999"], &[None, None]);
    store.apply(vec![entry("key-1", Some("new"))], Some(1));
    store.at_log_end();
    store.close();
    assert_eq!(store.opened(), (Some(1), None), "{name}: the new file is used");
    note.expect("a note")
}

#[test]
fn a_truncated_file_is_not_used() {
    for part in [1, 2, 3] {
        let damage = |file: &fs::File, length| file.set_len(length * part / 4).expect("truncated");
        let note = check_damaged(&format!("truncated-{part}"), damage);
        assert!(note.starts_with("it is damaged: "), "{note}");
    }
}

/// Each place of the file at least once: the header, the pages of the tree and of the allocator.
#[test]
fn an_overwritten_file_is_not_used_and_does_not_panic() {
    let overwritten = |at: u64, bytes: &'static [u8]| {
        move |file: &fs::File, length: u64| file.write_all_at(bytes, length * at / 8).expect("written")
    };
    let note = check_damaged("overwritten-0", overwritten(0, b"not a database at all"));
    assert!(note.starts_with("it is damaged: "), "{note}");
    let dir = TempDir::new("pages");
    let mut store = Store::new(&dir);
    store.opened();
    let keys: Vec<String> = (0..500).map(|number| format!("key-{number}")).collect();
    store.apply(keys.iter().map(|key| entry(key, Some("a value of a key"))).collect(), Some(7));
    store.at_log_end();
    store.close();
    let good = fs::read(file(&dir)).expect("a file");
    let pages = good.len() / 4096;
    let mut unused = 0;
    for page in 0..pages {
        let mut damaged = good.clone();
        for byte in damaged.iter_mut().skip(page * 4096 + 100).take(64) {
            *byte ^= 0x5a;
        }
        fs::write(file(&dir), damaged).expect("written");
        // A page that is not part of the tree may be damaged.
        if store.opened().0 == Some(7) {
            unused += 1;
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            store.check_values(&keys, &vec![Some("a value of a key"); keys.len()]);
        }
        store.close();
    }
    assert!(unused < pages, "no damage was detected");
}

#[test]
fn a_file_of_something_else_is_not_used() {
    let dir = TempDir::new("other");
    fs::create_dir_all(dir.path()).expect("a folder");
    fs::write(file(&dir), b"hello").expect("written");
    let mut store = Store::new(&dir);
    let (resume, note) = store.opened();
    assert_eq!(resume, None);
    assert!(note.is_some_and(|note| note.starts_with("it is damaged: ")));
}

#[test]
fn a_second_store_gets_a_private_file() {
    let dir = TempDir::new("private");
    let mut first = Store::new(&dir);
    first.opened();
    first.apply(vec![entry("ada", Some("first"))], Some(7));
    first.at_log_end();
    let mut second = Store::new(&dir);
    let note = "another process uses it: a private file is used until the partition is closed";
    assert_eq!(second.opened(), (None, Some(note.to_owned())));
    second.apply(vec![entry("ada", Some("second"))], Some(8));
    second.at_log_end();
    second.advance(Duration::from_secs(10));
    first.check_values(&["ada"], &[Some("first")]);
    second.check_values(&["ada"], &[Some("second")]);
    let files = |dir: &TempDir| fs::read_dir(dir.path()).expect("a folder").count();
    assert_eq!(files(&dir), 1, "the private file has no name");
    second.close();
    first.close();
    assert_eq!(second.opened(), (Some(7), None), "the lock is released by the close");
    second.check_values(&["ada"], &[Some("first")]);
}

#[test]
fn a_store_in_memory_keeps_values_until_the_close() {
    let mut store = Store::with(spec(None, 1 << 20));
    assert_eq!(store.opened(), (None, None));
    store.apply(vec![entry("ada", Some("1"))], Some(7));
    store.at_log_end();
    store.advance(Duration::from_secs(10));
    store.check_values(&["ada"], &[Some("1")]);
    store.close();
    assert_eq!(store.opened(), (None, None));
    store.check_values(&["ada"], &[None]);
}

/// Format 1 had values without times.
#[test]
fn a_file_of_an_older_format_is_not_used() {
    let dir = TempDir::new("format");
    let mut store = Store::new(&dir);
    store.fill(7);
    set_format(&file(&dir), 1);
    let note = "it was never complete, or has another format";
    assert_eq!(store.opened(), (None, Some(note.to_owned())));
    store.check_values(&["ada"], &[None]);
}

fn set_format(path: &Path, format: u8) {
    const HEADER: redb::TableDefinition<'static, &str, &[u8]> = redb::TableDefinition::new("header");
    let database = redb::Database::open(path).expect("a file");
    let transaction = database.begin_write().expect("writable");
    {
        let mut table = transaction.open_table(HEADER).expect("a table");
        let mut bytes = table.get("header").expect("readable").expect("a header").value().to_vec();
        bytes[0] = format;
        table.insert("header", bytes.as_slice()).expect("written");
    }
    transaction.commit().expect("written");
}
