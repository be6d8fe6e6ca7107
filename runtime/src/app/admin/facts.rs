//! What is known before anything runs: the configuration, and this process.

use crate::config::{Checked, HandlerConfig};
use keylane_core::Now;

use crate::status::{
    DeliveryMode, HandlerState, HandlerStatus, HandlerTotals, InstanceStatus, MemoryStatus, ProcessState,
    ProcessStatus,
};

use super::handler_entry::millis;

/// The facts about this process.
#[derive(Clone, Debug)]
pub(super) struct ProcessFacts {
    configuration_sha256: String,
    workers: usize,
    memory_budget: u64,
    host: String,
}

/// The facts about one handler.
#[derive(Clone, Debug)]
pub(super) struct HandlerFacts {
    pub(super) name: String,
    group: String,
    topics: Vec<String>,
    dead_letter_topics: Vec<String>,
    delivery: DeliveryMode,
    component: String,
    calls_limit: u32,
}

/// Returns the delivery of a handler.
pub(in crate::app) fn delivery(handler: &HandlerConfig) -> DeliveryMode {
    match handler.transactions {
        Some(_) => DeliveryMode::Transactional,
        None => DeliveryMode::AtLeastOnce,
    }
}

impl ProcessFacts {
    pub(super) fn of(config: &Checked) -> ProcessFacts {
        ProcessFacts {
            configuration_sha256: config.sha256.clone(),
            workers: config.runtime.workers.get(),
            memory_budget: config.runtime.memory_budget,
            host: gethostname::gethostname().to_string_lossy().into_owned(),
        }
    }

    pub(super) fn status(
        &self,
        now: Now,
        state: ProcessState,
        memory: MemoryStatus,
        handlers: Vec<HandlerStatus>,
    ) -> ProcessStatus {
        ProcessStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            host: self.host.clone(),
            time_ms: now.wall_ms,
            uptime_ms: millis(now.uptime),
            configuration_sha256: self.configuration_sha256.clone(),
            state,
            workers: self.workers,
            memory_budget_bytes: self.memory_budget,
            memory,
            log_lines_dropped: crate::logging::lines_dropped(),
            handlers,
            producer_brokers: Vec::new(),
        }
    }
}

impl HandlerFacts {
    pub(super) fn of(handler: &HandlerConfig) -> HandlerFacts {
        HandlerFacts {
            name: handler.name.clone(),
            group: handler.group_id.clone(),
            topics: handler.topics.clone(),
            dead_letter_topics: handler
                .dead_letters
                .as_ref()
                .map(|dead_letters| dead_letters.topics.clone())
                .unwrap_or_default(),
            delivery: delivery(handler),
            component: handler.component.display().to_string(),
            calls_limit: handler.lanes.max_concurrency,
        }
    }

    /// Returns the status of a handler of which nothing else is known.
    pub(super) fn status(&self, state: HandlerState, component_sha256: Option<String>) -> HandlerStatus {
        HandlerStatus {
            handler: self.name.clone(),
            group: self.group.clone(),
            topics: self.topics.clone(),
            dead_letter_topics: self.dead_letter_topics.clone(),
            delivery: self.delivery,
            transactions: None,
            keyed_state: None,
            gate: None,
            component: self.component.clone(),
            component_sha256,
            state,
            failures: Vec::new(),
            unresponsive_ms: None,
            limited_by: None,
            rates: None,
            call_times: None,
            catch_up_ms: None,
            calls: 0,
            waiting_calls: 0,
            calls_limit: self.calls_limit,
            instances: InstanceStatus::default(),
            guest_memory_bytes: 0,
            lanes: 0,
            ready_lanes: 0,
            retrying_lanes: 0,
            blocking_topic: None,
            totals: HandlerTotals::default(),
            filter: Vec::new(),
            brokers: Vec::new(),
            no_broker_reachable: false,
            fetch_queue_bytes: None,
            grown_topics: Vec::new(),
            partitions: Vec::new(),
        }
    }
}
