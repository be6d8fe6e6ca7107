//! The staging area of a call: its events, in the columns of a `batch-handler`.
//!
//! The event loop fills it row by row and the guest call borrows it. The buffers are kept, so that filling
//! the next call allocates nothing.

use super::bindings::batch::exports::keylane::handler::batch_handler as wit;

/// Capacity beyond this is freed when a column is cleared: the buffers of hundreds of calls must not all stay as large
/// as the largest batch.
const KEPT_BYTES: usize = 256 << 10;

/// The length of an absent value, as in the Kafka protocol.
pub(super) const ABSENT: i32 = -1;

/// The events of one call: one topic, one attempt number, grouped by lane.
#[derive(Debug)]
pub struct Batch {
    /// The argument of the guest call. Its `headers` are set only if a row has headers, its `states` only if a state was
    /// pushed.
    columns: wit::Batch,
    /// The header columns, kept here while no row has headers.
    spare_headers: wit::HeaderColumns,
    /// The states, kept here while none was pushed.
    spare_states: wit::BytesColumn,
    /// Rows pushed since the last lane ended.
    open_rows: u32,
}

impl Batch {
    /// Creates an empty batch, whose buffers grow with use.
    pub fn new() -> Batch {
        Batch {
            columns: wit::Batch {
                topic: String::new(),
                attempt: 1,
                last_attempt: false,
                lanes: Vec::new(),
                partitions: Vec::new(),
                offsets: Vec::new(),
                timestamps: Vec::new(),
                keys: column(),
                values: column(),
                headers: None,
                states: None,
            },
            spare_headers: wit::HeaderColumns { counts: Vec::new(), names: column(), values: column() },
            spare_states: column(),
            open_rows: 0,
        }
    }

    /// Discards the previous call and begins the `attempt`th attempt of events of this topic.
    pub fn begin(&mut self, topic: &str, attempt: u32, last_attempt: bool) {
        let columns = &mut self.columns;
        columns.topic.clear();
        columns.topic.push_str(topic);
        columns.attempt = attempt;
        columns.last_attempt = last_attempt;
        columns.lanes.clear();
        columns.partitions.clear();
        columns.offsets.clear();
        columns.timestamps.clear();
        clear(&mut columns.keys);
        clear(&mut columns.values);
        if let Some(headers) = columns.headers.take() {
            self.spare_headers = headers;
        }
        self.spare_headers.counts.clear();
        clear(&mut self.spare_headers.names);
        clear(&mut self.spare_headers.values);
        if let Some(states) = columns.states.take() {
            self.spare_states = states;
        }
        clear(&mut self.spare_states);
        self.open_rows = 0;
    }

    /// Adds the next event of the open lane. In header names, invalid UTF-8 is replaced by U+FFFD.
    pub fn push_row<'a>(
        &mut self,
        partition: u32,
        offset: u64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) {
        let columns = &mut self.columns;
        columns.partitions.push(partition);
        columns.offsets.push(offset);
        columns.timestamps.push(timestamp);
        push(&mut columns.keys, key);
        push(&mut columns.values, value);
        self.open_rows += 1;

        let columns_of_headers = self.columns.headers.as_mut().unwrap_or(&mut self.spare_headers);
        let mut count = 0;
        for (name, value) in headers {
            push_name(&mut columns_of_headers.names, name);
            push(&mut columns_of_headers.values, value);
            count += 1;
        }
        columns_of_headers.counts.push(count);
        if count > 0 && self.columns.headers.is_none() {
            let empty = wit::HeaderColumns { counts: Vec::new(), names: column(), values: column() };
            self.columns.headers = Some(std::mem::replace(&mut self.spare_headers, empty));
        }
    }

    /// Ends the open lane: it consists of the rows since the end of the previous lane.
    pub fn end_lane(&mut self) {
        debug_assert!(self.open_rows > 0, "a lane of a call has at least one row");
        self.columns.lanes.push(self.open_rows);
        self.open_rows = 0;
    }

    /// Adds the state of the next lane, which is the state before the lane's first row in this call. `None`: the lane has
    /// no state, which differs from an empty one. For a handler with state, this is called once for each lane, in the
    /// order of the lanes, after all rows were pushed.
    pub fn push_state(&mut self, state: Option<&[u8]>) {
        let spare = &mut self.spare_states;
        let states = self.columns.states.get_or_insert_with(|| std::mem::replace(spare, column()));
        debug_assert!(states.lengths.len() < self.columns.lanes.len(), "one state per lane, after the rows");
        push(states, state);
    }

    /// Returns the number of lanes whose state was pushed: 0, or as many as there are lanes.
    pub fn states(&self) -> usize {
        self.columns.states.as_ref().map_or(0, |states| states.lengths.len())
    }

    /// Returns the topic of all rows.
    pub fn topic(&self) -> &str {
        &self.columns.topic
    }

    /// Returns the number of the attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.columns.attempt
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.columns.offsets.len()
    }

    /// Returns the number of rows of each lane.
    pub fn lanes(&self) -> &[u32] {
        &self.columns.lanes
    }

    /// Returns the partition and offset of a row.
    pub fn position(&self, row: usize) -> Option<(u32, u64)> {
        Some((*self.columns.partitions.get(row)?, *self.columns.offsets.get(row)?))
    }

    /// Returns the timestamp of a row in milliseconds since 1970; negative if it has none.
    pub fn timestamp(&self, row: usize) -> i64 {
        self.columns.timestamps.get(row).copied().unwrap_or(-1)
    }

    pub(super) fn columns(&self) -> &wit::Batch {
        &self.columns
    }
}

impl Default for Batch {
    fn default() -> Self {
        Batch::new()
    }
}

fn column() -> wit::BytesColumn {
    wit::BytesColumn { lengths: Vec::new(), data: Vec::new() }
}

fn clear(column: &mut wit::BytesColumn) {
    column.lengths.clear();
    column.data.clear();
    column.data.shrink_to(KEPT_BYTES);
}

pub(super) fn push(column: &mut wit::BytesColumn, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else { return column.lengths.push(ABSENT) };
    column.lengths.push(length(bytes.len()));
    column.data.extend_from_slice(bytes);
}

/// Appends a name. Invalid UTF-8 is replaced by U+FFFD without an intermediate copy: invalid names must not allocate
/// either.
fn push_name(column: &mut wit::BytesColumn, name: &[u8]) {
    let before = column.data.len();
    for chunk in name.utf8_chunks() {
        column.data.extend_from_slice(chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            column.data.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    column.lengths.push(length(column.data.len() - before));
}

fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("lengths in the Kafka protocol are signed 32-bit integers")
}

/// Takes the next entry of a column from the front of `data`, its remaining bytes. `None`: absent.
pub(super) fn next<'a>(length: i32, data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(length).ok()?; // negative: absent
    let (bytes, rest) = data.split_at_checked(length)?;
    *data = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'a> = &'a [(&'a [u8], Option<&'a [u8]>)];

    fn push_one(batch: &mut Batch, headers: Headers<'_>) {
        batch.push_row(3, 7, -1, None, Some(b""), headers.iter().copied());
    }

    #[test]
    fn absent_and_empty_differ_and_lanes_are_counted() {
        let mut batch = Batch::new();
        batch.begin("orders", 2, true);
        batch.push_row(1, 10, 5, Some(b"k"), Some(b"value"), std::iter::empty());
        push_one(&mut batch, &[]);
        batch.end_lane();
        push_one(&mut batch, &[]);
        batch.end_lane();
        let columns = batch.columns();
        assert_eq!((columns.topic.as_str(), columns.attempt, columns.last_attempt), ("orders", 2, true));
        assert_eq!(columns.lanes, [2, 1]);
        assert_eq!(columns.keys.lengths, [1, -1, -1]);
        assert_eq!(columns.values.lengths, [5, 0, 0]);
        assert_eq!(columns.values.data, b"value");
        assert_eq!(batch.position(1), Some((3, 7)));
        assert!(columns.headers.is_none(), "no row has headers");
    }

    #[test]
    fn one_header_adds_columns_for_all_rows_and_the_next_call_has_none() {
        let mut batch = Batch::new();
        batch.begin("orders", 1, false);
        push_one(&mut batch, &[]);
        push_one(&mut batch, &[(b"a", Some(b"1")), (b"b\xff", None)]);
        push_one(&mut batch, &[]);
        batch.end_lane();
        let headers = batch.columns().headers.as_ref().expect("a row has headers");
        assert_eq!(headers.counts, [0, 2, 0]);
        assert_eq!(headers.names.data, "ab\u{fffd}".as_bytes(), "invalid UTF-8 is replaced");
        assert_eq!(headers.names.lengths, [1, 4]);
        assert_eq!(headers.values.lengths, [1, -1]);

        batch.begin("orders", 1, false);
        push_one(&mut batch, &[]);
        assert!(batch.columns().headers.is_none());
        push_one(&mut batch, &[(b"c", None)]);
        let headers = batch.columns().headers.as_ref().expect("a row has headers");
        assert_eq!(headers.counts, [0, 1], "no header of the previous call remains");
    }

    #[test]
    fn states_belong_to_lanes_and_an_empty_one_is_present() {
        let mut batch = Batch::new();
        for _ in 0..2 {
            batch.begin("orders", 1, false);
            for rows in [2, 1, 1] {
                (0..rows).for_each(|_| push_one(&mut batch, &[]));
                batch.end_lane();
            }
            assert!(
                batch.columns().states.is_none(),
                "no state was pushed, or only those of the previous call"
            );
            assert_eq!(batch.states(), 0);
            for state in [Some(&b"one"[..]), None, Some(b"")] {
                batch.push_state(state);
            }
            let states = batch.columns().states.as_ref().expect("states were pushed");
            assert_eq!((&states.lengths[..], &states.data[..]), (&[3, -1, 0][..], &b"one"[..]));
            assert_eq!(batch.states(), 3);
        }
    }

    #[test]
    fn the_buffers_of_states_are_reused_unless_they_are_large() {
        let mut batch = Batch::new();
        let mut fill = |state: &[u8]| {
            batch.begin("orders", 1, false);
            push_one(&mut batch, &[]);
            batch.end_lane();
            batch.push_state(Some(state));
            let states = batch.columns().states.as_ref().expect("a state was pushed");
            (states.data.as_ptr(), states.data.capacity())
        };
        let first = fill(&[7; 1_000]);
        assert_eq!(fill(&[8; 900]), first);
        let large = fill(&vec![9; KEPT_BYTES + 1]);
        assert!(large.1 > KEPT_BYTES);
        assert!(fill(b"small").1 <= KEPT_BYTES);
    }
}
