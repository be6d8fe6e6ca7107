//! From the outputs of an ended call to the acks that its events wait for.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use keylane_core::{CallId, Dispatch, SessionId};

use crate::config;
use crate::guest::{Call, Output};
use crate::sink::{Delivery, Produced, Sink, SinkRecord, Token};

use super::acks::Acks;

/// Hands outputs to the producer in their order, and tells when all of a row have arrived.
pub(super) struct Outputs {
    sink: Arc<Sink>,
    consumer: u32,
    targets: Vec<Target>,
    provenance: Provenance,
    acks: Acks,
    /// Outputs that the producer had no room for, in their order: they go before anything newer.
    backlog: VecDeque<Waiting>,
    last_refusal: String,
    done: u64,
    emitted: u64,
}

/// Where a target leads.
struct Target {
    topic: u32,
    name: String,
    provenance: bool,
}

/// What the provenance headers say.
struct Provenance {
    /// Tells this process from every other one: session numbers begin anew in each.
    instance: u64,
    digest: String,
    /// Per call slot: the session of each row. Empty if no target wants provenance.
    sessions: Vec<Vec<SessionId>>,
    wanted: bool,
}

struct Waiting {
    record: OwnedRecord,
    token: Token,
}

struct OwnedRecord {
    topic: u32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Outputs {
    pub(super) fn new(sink: Arc<Sink>, consumer: u32, handler: &config::Handler, digest: &str) -> Self {
        let targets: Vec<Target> = handler
            .outputs
            .iter()
            .map(|output| Target {
                topic: sink.topic(&output.topic).expect("the producer was started with the topics of every output"),
                name: output.topic.clone(),
                provenance: output.provenance,
            })
            .collect();
        let wanted = targets.iter().any(|target| target.provenance);
        let instance = RandomState::new().hash_one(std::process::id());
        Outputs {
            sink,
            consumer,
            targets,
            provenance: Provenance { instance, digest: digest.to_owned(), sessions: Vec::new(), wanted },
            acks: Acks::default(),
            backlog: VecDeque::new(),
            last_refusal: String::new(),
            done: 0,
            emitted: 0,
        }
    }

    /// Outputs say which session they come from: the core knows it only until the call has ended.
    pub(super) fn remember_sessions(&mut self, dispatch: &Dispatch<'_>) {
        if self.provenance.wanted {
            self.provenance.remember(dispatch);
        }
    }

    /// Hands over the outputs of these rows, ascending; those of other rows are dropped.
    pub(super) fn hand_over(&mut self, call: &Call, rows: &[u32]) {
        let mut wanted = rows.iter().copied().peekable();
        let mut index_in_row = 0;
        let mut row_before = None;
        for output in call.results.outputs() {
            index_in_row = if row_before == Some(output.row) { index_in_row + 1 } else { 0 };
            row_before = Some(output.row);
            while wanted.next_if(|&row| row < output.row).is_some() {}
            if wanted.peek() == Some(&output.row) {
                self.produce(call, &output, index_in_row);
            }
        }
    }

    /// Tries again what the producer had no room for. True: something of it went out.
    pub(super) fn hand_over_backlog(&mut self) -> bool {
        let mut moved = false;
        while let Some(waiting) = self.backlog.front() {
            if self.sink.produce(&waiting.record.lend(), waiting.token) == Produced::Full {
                break;
            }
            moved = true;
            self.backlog.pop_front();
        }
        moved
    }

    /// The next row whose outputs have all arrived, or one with an output that was refused.
    pub(super) fn next_settled(&mut self) -> Option<Result<(CallId, u32), (CallId, u32)>> {
        while let Some(Delivery { token, result }) = self.sink.next_delivery(self.consumer) {
            match result {
                Ok(()) => {
                    self.emitted += 1;
                    if self.acks.acked(token.call, token.row) {
                        return Some(Ok((token.call, token.row)));
                    }
                }
                Err(refusal) => {
                    self.last_refusal = refusal;
                    return Some(Err((token.call, token.row)));
                }
            }
        }
        None
    }

    /// What the brokers said when they refused an output last.
    pub(super) fn last_refusal(&self) -> &str {
        &self.last_refusal
    }

    pub(super) fn count_done(&mut self, call: &Call) {
        let done: u32 = call.results.lane_ends().iter().map(|lane| lane.done).sum();
        self.done += u64::from(done);
    }

    pub(super) fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn emitted(&self) -> u64 {
        self.emitted
    }

    fn produce(&mut self, call: &Call, output: &Output<'_>, index_in_row: u32) {
        let target = self.targets.get(output.target as usize);
        let target = target.expect("results are checked against the targets of the handler");
        let token = Token { consumer: self.consumer, call: call.key.call, row: output.row };
        let mut record = OwnedRecord {
            topic: target.topic,
            key: output.key.map(<[u8]>::to_vec),
            value: output.value.map(<[u8]>::to_vec),
            headers: output
                .headers()
                .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
        };
        if target.provenance {
            self.provenance.add_to(&mut record.headers, call, output.row, index_in_row);
        }
        self.acks.add(token.call, token.row);
        let full = !self.backlog.is_empty() || self.sink.produce(&record.lend(), token) == Produced::Full;
        if full {
            tracing::debug!(topic = target.name, "the producer has no room; the output waits");
            self.backlog.push_back(Waiting { record, token });
        }
    }
}

impl Provenance {
    fn remember(&mut self, dispatch: &Dispatch<'_>) {
        let slot = dispatch.call.slot as usize;
        if self.sessions.len() <= slot {
            self.sessions.resize_with(slot + 1, Vec::new);
        }
        if let Some(sessions) = self.sessions.get_mut(slot) {
            sessions.clear();
            sessions.extend(dispatch.rows.iter().map(|row| row.session));
        }
    }

    fn add_to(
        &self,
        headers: &mut Vec<(String, Option<Vec<u8>>)>,
        call: &Call,
        row: u32,
        index_in_row: u32,
    ) {
        let (partition, offset) = call.batch.place(row as usize).unwrap_or_default();
        let sessions = self.sessions.get(call.key.call.slot as usize);
        let session = sessions.and_then(|sessions| sessions.get(row as usize)).map_or(0, |session| session.0);
        let mut add = |name: &str, value: String| headers.push((name.to_owned(), Some(value.into_bytes())));
        add("keylane-origin-topic", call.batch.topic().to_owned());
        add("keylane-origin-partition", partition.to_string());
        add("keylane-origin-offset", offset.to_string());
        add("keylane-output-index", index_in_row.to_string());
        add("keylane-attempt", "1".to_owned());
        add("keylane-session", format!("{:016x}-{session}", self.instance));
        add("keylane-handler-digest", self.digest.clone());
    }
}

impl OwnedRecord {
    fn lend(&self) -> SinkRecord<'_> {
        SinkRecord {
            topic: self.topic,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: self.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())).collect(),
        }
    }
}
