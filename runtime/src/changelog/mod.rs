//! The changelogs of keyed state: compacted topics that contain the state of each key. They are checked or created at the
//! start ([`prepare`]), and read when a partition is restored ([`ChangelogReader`]). Transactions write them: see
//! `sink::transactions`.

mod reader;
mod restore;
mod store;
mod topics;
mod unusable;

pub use reader::{ChangelogReader, ReaderSpec, RestoreEvent, RestoreRequest};
pub use store::LocalStore;
pub use topics::{Changelog, Error, Wanted, prepare};
