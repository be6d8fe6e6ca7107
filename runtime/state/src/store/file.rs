//! The file of one partition: a redb database of its entries, with a header.

use std::io::ErrorKind;
use std::ops::Bound;
use std::time::Duration;

use redb::{
    Builder, Database, DatabaseError, Durability, Error, ReadableDatabase, StorageError, TableDefinition,
    TableError,
};

use super::header::Header;
use super::row::Row;
use super::storage::Storage;
use super::types::FileIdentity;
use crate::StateValue;

const ENTRIES: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("entries");
const HEADER: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("header");
const HEADER_KEY: &str = "header";

/// Why the file can't be used now.
#[derive(Debug)]
pub(super) enum Fault {
    /// The operating system reported an error. The content is as it was at the last commit.
    Io(String),
    /// The content is damaged.
    Damaged(String),
}

/// Returns the fault of an error. Only an I/O error, other than that for a file that redb did not write, is worth
/// another attempt.
fn fault(error: impl Into<Error>) -> Fault {
    let error = error.into();
    let io = matches!(&error, Error::Io(error) if error.kind() != ErrorKind::InvalidData)
        || matches!(&error, Error::PreviousIo | Error::DatabaseClosed);
    if io { Fault::Io(error.to_string()) } else { Fault::Damaged(error.to_string()) }
}

/// What makes a file usable.
pub(super) struct Trust {
    pub(super) partition: i32,
    pub(super) identity: FileIdentity,
    pub(super) now_ms: i64,
    pub(super) trusted_for: Duration,
}

/// An open file. Each [`File::write`] is durable: redb loses the commits since the last durable one if it must open the
/// file again after an I/O error, so entries of other commits would have to be kept in memory all the same.
#[derive(Debug)]
pub(super) struct File {
    database: Database,
    /// The header of the last commit; `None`: there was none.
    header: Option<Header>,
}

impl File {
    /// Opens the file of another run if it can be used, and otherwise clears it. The note says why it was cleared.
    ///
    /// Every page is verified, because redb trusts a file that was closed, and panics if it was changed since.
    pub(super) fn open(
        storage: &Storage,
        cache_bytes: usize,
        trust: &Trust,
    ) -> Result<(File, Option<i64>, Option<String>), Fault> {
        let io = |error: std::io::Error| Fault::Io(error.to_string());
        if storage.is_empty().map_err(io)? {
            return Ok((File::create(storage, cache_bytes)?, None, None));
        }
        match File::verified(storage, cache_bytes, trust) {
            Ok((file, through)) => Ok((file, Some(through), None)),
            Err(note) => {
                storage.clear().map_err(io)?;
                Ok((File::create(storage, cache_bytes)?, None, Some(note)))
            }
        }
    }

    fn verified(storage: &Storage, cache_bytes: usize, trust: &Trust) -> Result<(File, i64), String> {
        let opened = Builder::new()
            .set_cache_size(cache_bytes)
            .set_check_integrity_on_open(true)
            .create_with_backend(storage.clone());
        let database = opened.map_err(|error| format!("it is damaged: {error}"))?;
        let header = read_header(&database).map_err(|error| format!("it is damaged: {error}"))?;
        let header = header.ok_or("it was never complete, or has another format")?;
        let through = header.verify(trust.partition, trust.identity, trust.now_ms, trust.trusted_for)?;
        Ok((File { database, header: Some(header) }, through))
    }

    fn create(storage: &Storage, cache_bytes: usize) -> Result<File, Fault> {
        let database = database(storage, cache_bytes).map_err(fault)?;
        Ok(File { database, header: None })
    }

    /// Opens the file again, which this process has used before: after an error, or with another size of the cache.
    /// `header`: that of the last commit that was reported as successful. A later one may be complete.
    pub(super) fn reopen(
        storage: &Storage,
        cache_bytes: usize,
        header: Option<Header>,
    ) -> Result<File, Fault> {
        if header.is_some() && storage.is_empty().map_err(|error| Fault::Io(error.to_string()))? {
            return Err(Fault::Damaged("the file was emptied".to_owned()));
        }
        let database = database(storage, cache_bytes).map_err(fault)?;
        let found = read_header(&database).map_err(fault)?;
        if found.and_then(|found| found.through) < header.and_then(|header| header.through) {
            return Err(Fault::Damaged("the file was changed by another process".to_owned()));
        }
        Ok(File { database, header: found })
    }

    pub(super) fn header(&self) -> Option<Header> {
        self.header
    }

    /// Writes sorted entries and the header in one durable commit.
    pub(super) fn write(
        &mut self,
        entries: &[(&[u8], Option<Row<'_>>)],
        header: Header,
    ) -> Result<(), Fault> {
        self.commit(entries, Some(header)).map_err(fault)?;
        self.header = Some(header);
        Ok(())
    }

    /// Adds sorted entries, which are lost if the file must be opened again before the next `write`.
    pub(super) fn add(&self, entries: &[(&[u8], Option<Row<'_>>)]) -> Result<(), Fault> {
        self.commit(entries, None).map_err(fault)
    }

    fn commit(&self, entries: &[(&[u8], Option<Row<'_>>)], header: Option<Header>) -> Result<(), Error> {
        let mut transaction = self.database.begin_write()?;
        let durability = if header.is_some() { Durability::Immediate } else { Durability::None };
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(ENTRIES)?;
            let mut bytes = Vec::new();
            for &(key, row) in entries {
                match row {
                    Some(row) => {
                        bytes.clear();
                        row.encode(&mut bytes);
                        drop(table.insert(key, bytes.as_slice())?);
                    }
                    None => drop(table.remove(key)?),
                }
            }
            if let Some(header) = header {
                transaction.open_table(HEADER)?.insert(HEADER_KEY, header.encode().as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Opens the entries for reading.
    pub(super) fn reader(&self) -> Result<Reader, Fault> {
        let transaction = self.database.begin_read().map_err(fault)?;
        match transaction.open_table(ENTRIES) {
            Ok(table) => Ok(Reader(Some(table))),
            Err(TableError::TableDoesNotExist(_)) => Ok(Reader(None)),
            Err(error) => Err(fault(error)),
        }
    }

    /// Closes the file. Returns whether the last entries of [`File::add`] are in it; everything else is in any case.
    pub(super) fn close(self) -> bool {
        self.database.close().is_ok()
    }
}

/// The entries of a file at one commit; `None`: nothing has been written.
pub(super) struct Reader(Option<redb::ReadOnlyTable<&'static [u8], &'static [u8]>>);

impl Reader {
    /// Returns the value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<StateValue, Fault> {
        let Some(table) = &self.0 else { return Ok(None) };
        let Some(row) = table.get(key).map_err(fault)? else { return Ok(None) };
        let not_a_row = || Fault::Damaged("a row has no time".to_owned());
        Row::decode(row.value()).map(|row| Some(row.value.into())).ok_or_else(not_a_row)
    }

    /// Passes the keys after this one and their rows to `each`, in the order of the keys, until it returns false.
    pub(super) fn each_after(
        &self,
        key: Option<&[u8]>,
        mut each: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Fault> {
        let Some(table) = &self.0 else { return Ok(()) };
        let after = key.map_or(Bound::Unbounded, Bound::Excluded);
        for entry in table.range::<&[u8]>((after, Bound::Unbounded)).map_err(fault)? {
            let (key, row) = entry.map_err(fault)?;
            if !each(key.value(), row.value()) {
                break;
            }
        }
        Ok(())
    }
}

fn database(storage: &Storage, cache_bytes: usize) -> Result<Database, DatabaseError> {
    Builder::new().set_cache_size(cache_bytes).create_with_backend(storage.clone())
}

fn read_header(database: &Database) -> Result<Option<Header>, Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(HEADER) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let value = table.get(HEADER_KEY).map_err(|error: StorageError| Error::from(error))?;
    Ok(value.and_then(|value| Header::decode(value.value())))
}
