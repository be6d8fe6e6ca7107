//! What the admin server knows about one handler: its event loop, its last view, and its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keylane_admin::LanesError;
use keylane_core::Now;
use tokio::sync::watch;

use crate::guest::{GuestCounters, GuestUsage};
use crate::status::{HandlerState, HandlerStatus, InstanceStatus, TransactionsStatus};

use super::super::event_loop::{HandlerView, LaneOrder, LanesRequest, LoopEvent, Mailbox, RankedLane};
use super::client_statistics::{BrokersView, ClientStatistics};
use super::facts::HandlerFacts;
use super::pulse::{LivenessCheck, Pulse};
use super::view;

/// How long a response waits for views of the event loops.
pub(super) const VIEW_WAIT_MAX: Duration = Duration::from_secs(1);

/// One handler of the process.
pub(super) struct HandlerEntry {
    pub(super) facts: HandlerFacts,
    pub(super) state: Mutex<EntryState>,
}

#[derive(Default)]
pub(super) struct EntryState {
    /// The digest of its component, once that is loaded.
    pub(super) digest: Option<String>,
    /// The counters of its guests, once its component is loaded.
    pub(super) guests: Option<Arc<GuestCounters>>,
    /// Its event loop, once that is prepared.
    pub(super) event_loop: Option<(Arc<Mailbox>, Arc<Pulse>)>,
    pub(super) liveness: LivenessCheck,
    /// The statistics of its consumer, unless they are off, or it has ended.
    pub(super) statistics: Option<ClientStatistics>,
    /// The last request for a view. At most one is pending.
    view_request: Option<watch::Receiver<Option<HandlerView>>>,
    /// The last request for lanes. At most one is pending.
    lanes_request: Option<watch::Receiver<Option<Vec<RankedLane>>>>,
    /// The last view of the loop.
    pub(super) last_view: Option<HandlerView>,
    /// The uptime of the first request that the loop has not answered in time.
    unresponsive_since: Option<Duration>,
    /// The failures with which the handler ended; `None`: it has not ended.
    pub(super) end: Option<Vec<String>>,
}

impl EntryState {
    /// Returns what its guests use now; `None`: its component is not loaded. Their counters are read without the event
    /// loop, because instances may outlive it.
    pub(super) fn guest_usage(&self) -> Option<GuestUsage> {
        Some(self.guests.as_ref()?.snapshot())
    }
}

impl HandlerEntry {
    /// Requests a view, unless a request is not answered yet; `None`: the loop does not run.
    pub(super) fn request_view(&self) -> Option<watch::Receiver<Option<HandlerView>>> {
        let state = &mut *lock(&self.state);
        let (mailbox, pulse) = state.event_loop.as_ref()?;
        if pulse.is_leaving() {
            return None; // it leaves its group, and no longer reads its mailbox
        }
        if let Some(requested) = state.view_request.as_ref().filter(|view| view.borrow().is_none()) {
            return Some(requested.clone());
        }
        let (sender, requested) = watch::channel(None);
        mailbox.put(LoopEvent::View(sender));
        Some(state.view_request.insert(requested).clone())
    }

    /// Returns the status. `started`: whether the loops run. `requested`: the view, which is `None` if the loop did not
    /// respond in time.
    pub(super) fn status(
        &self,
        now: Now,
        started: bool,
        requested: Option<&watch::Receiver<Option<HandlerView>>>,
    ) -> HandlerStatus {
        let mut state = lock(&self.state);
        let view = requested.and_then(|requested| requested.borrow().clone());
        let has_ended = state.end.is_some();
        if requested.is_none() || view.is_some() || has_ended {
            state.unresponsive_since = None;
        } else {
            state.unresponsive_since.get_or_insert(now.uptime.saturating_sub(VIEW_WAIT_MAX));
        }
        // Another request may have stored a later view. An older one must not replace it: counters must not decrease.
        let is_later = |view: &HandlerView| {
            state
                .last_view
                .as_ref()
                .is_none_or(|last| last.core.counters.settled <= view.core.counters.settled)
        };
        if !has_ended && let Some(view) = view.filter(is_later) {
            state.last_view = Some(view);
        }
        let handler = match (&state.end, &state.event_loop) {
            (Some(_), _) => HandlerState::Stopped,
            (None, None) => HandlerState::Starting,
            (None, Some(_)) if !started => HandlerState::Starting,
            (None, Some((_, pulse))) if pulse.is_leaving() => HandlerState::Draining,
            (None, Some(_))
                if state.last_view.as_ref().is_some_and(|last| last.core.drain_until.is_some()) =>
            {
                HandlerState::Draining
            }
            (None, Some((_, pulse))) if pulse.was_assigned() => HandlerState::Running,
            (None, Some(_)) => HandlerState::Joining,
        };
        let mut status = self.facts.status(handler, state.digest.clone());
        status.failures = state.end.clone().unwrap_or_default();
        status.unresponsive_ms =
            state.unresponsive_since.map(|since| millis(now.uptime.saturating_sub(since)));
        if let Some(last) = &state.last_view {
            view::add(&mut status, last, now);
        }
        if let Some(guests) = state.guest_usage() {
            status.instances = InstanceStatus { idle: guests.idle_instances, busy: guests.busy_instances };
            status.guest_memory_bytes = guests.memory_bytes;
        }
        if let Some(view) = state.statistics.as_mut().and_then(|statistics| statistics.read(now)) {
            let BrokersView { brokers, none_reachable, fetch_queue_bytes } = view;
            (status.brokers, status.no_broker_reachable) = (brokers, none_reachable);
            status.fetch_queue_bytes = Some(fetch_queue_bytes);
        }
        if matches!(handler, HandlerState::Stopped) {
            (status.limited_by, status.rates, status.catch_up_ms) = (None, None, None);
            status.transactions.iter_mut().for_each(TransactionsStatus::forget_recent);
            (status.calls, status.waiting_calls, status.lanes, status.ready_lanes, status.retrying_lanes) =
                (0, 0, 0, 0, 0);
        }
        status
    }

    /// Requests the worst lanes.
    ///
    /// # Errors
    ///
    /// The loop does not run, or has not responded to the request before.
    pub(super) fn request_lanes(
        &self,
        by: LaneOrder,
        limit: usize,
    ) -> Result<watch::Receiver<Option<Vec<RankedLane>>>, LanesError> {
        let state = &mut *lock(&self.state);
        let (mailbox, pulse) = state.event_loop.as_ref().ok_or(LanesError::NotRunning)?;
        if pulse.is_leaving() {
            return Err(LanesError::NotRunning);
        }
        if state
            .lanes_request
            .as_ref()
            .is_some_and(|lanes| lanes.borrow().is_none() && lanes.has_changed().is_ok())
        {
            return Err(LanesError::Unresponsive);
        }
        let (response, lanes) = watch::channel(None);
        mailbox.put(LoopEvent::Lanes(LanesRequest { by, limit, response }));
        Ok(state.lanes_request.insert(lanes).clone())
    }

    /// Returns why the handler is not ready, if it is not.
    pub(super) fn not_ready(&self) -> Option<String> {
        let state = lock(&self.state);
        let name = &self.facts.name;
        if state.end.is_some() {
            return Some(format!("handler `{name}` has stopped"));
        }
        let assigned = state.event_loop.as_ref().is_some_and(|(_, pulse)| pulse.was_assigned());
        (!assigned).then(|| format!("handler `{name}` has no assignment yet"))
    }
}

/// Converts a time for the status.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Locks the data of one mutex.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
