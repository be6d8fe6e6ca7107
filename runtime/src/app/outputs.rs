//! From the outputs of an ended call to the acks that its events wait for.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use keylane_core::{CallId, Dispatch, SessionId};

use crate::config;
use crate::guest::{Call, Output};
use crate::sink::{Delivery, DeliveryError, Output as Record, ProduceError, Refusal, Sink, Token};

use super::acks::Acks;

/// Hands outputs to the producer in their order, and tells when all of a row have arrived.
pub(super) struct Outputs {
    sink: Arc<Sink>,
    /// Names this loop to the sink.
    handler: u16,
    targets: Vec<Target>,
    provenance: Provenance,
    acks: Acks,
    /// Outputs that the producer had no room for, in their order: they go before anything newer.
    backlog: VecDeque<Waiting>,
    /// Outputs that the client did not take.
    refused: VecDeque<(CallId, u32)>,
    last_refusal: String,
    done: u64,
    emitted: u64,
}

/// Where a target leads.
struct Target {
    topic: u16,
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
    topic: u16,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Outputs {
    /// `topics`: those that the sink was started with.
    pub(super) fn new(
        sink: Arc<Sink>,
        index: u16,
        handler: &config::Handler,
        topics: &[String],
        digest: &str,
    ) -> Self {
        let topic =
            |name: &String| (0..).zip(topics).find(|(_, known)| *known == name).map(|(index, _)| index);
        let targets: Vec<Target> = handler
            .outputs
            .iter()
            .map(|output| Target {
                topic: topic(&output.topic).expect("the sink was started with the topics of every output"),
                name: output.topic.clone(),
                provenance: output.provenance,
            })
            .collect();
        let wanted = targets.iter().any(|target| target.provenance);
        let instance = RandomState::new().hash_one(std::process::id());
        Outputs {
            sink,
            handler: index,
            targets,
            provenance: Provenance { instance, digest: digest.to_owned(), sessions: Vec::new(), wanted },
            acks: Acks::default(),
            backlog: VecDeque::new(),
            refused: VecDeque::new(),
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
            let token = waiting.token;
            match waiting.record.hand_to(&self.sink, token) {
                Ok(()) => {}
                Err(ProduceError::Full) => break,
                Err(ProduceError::Refused(error)) => self.refuse(token, in_words(error)),
            }
            moved = true;
            self.backlog.pop_front();
        }
        moved
    }

    /// Takes a report. Gives the row whose last output it was, or that has an output that was refused.
    pub(super) fn take(&mut self, delivery: &Delivery) -> Option<Result<(CallId, u32), (CallId, u32)>> {
        let (call, row) = (delivery.token.call, delivery.token.row);
        match delivery.result {
            Ok(_) => {
                self.emitted += 1;
                self.acks.acked(call, row).then_some(Ok((call, row)))
            }
            Err(error) => {
                self.last_refusal = in_words(error);
                Some(Err((call, row)))
            }
        }
    }

    /// The next row with an output that the client did not take.
    pub(super) fn next_refused(&mut self) -> Option<(CallId, u32)> {
        self.refused.pop_front()
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
        let token = Token { handler: self.handler, call: call.key.call, row: output.row };
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
        let tried =
            if self.backlog.is_empty() { record.hand_to(&self.sink, token) } else { Err(ProduceError::Full) };
        match tried {
            Ok(()) => {}
            Err(ProduceError::Full) => {
                tracing::debug!(topic = target.name, "the producer has no room; the output waits");
                self.backlog.push_back(Waiting { record, token });
            }
            Err(ProduceError::Refused(error)) => self.refuse(token, in_words(error)),
        }
    }

    fn refuse(&mut self, token: Token, why: String) {
        self.last_refusal = why;
        self.refused.push_back((token.call, token.row));
    }
}

/// What a refusal means for somebody who must act.
fn in_words(error: DeliveryError) -> String {
    let code = error.code;
    match error.refusal {
        Refusal::Record => format!("{code}"),
        Refusal::Topic => format!("{code}; create the topic, or grant this user WRITE on it"),
        Refusal::Again => {
            format!("{code}; brokers refuse batches, so it may be another output of the same batch")
        }
        Refusal::Producer => format!("{code}; the producer has ended, start Keylane again"),
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

    fn add_to(&self, headers: &mut Vec<(String, Option<Vec<u8>>)>, call: &Call, row: u32, index_in_row: u32) {
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
    fn hand_to(&self, sink: &Sink, token: Token) -> Result<(), ProduceError> {
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())).collect();
        let record = Record {
            topic: self.topic,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &headers,
        };
        sink.produce(&record, token)
    }
}
