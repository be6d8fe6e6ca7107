//! A linked component with its handler's options. It creates instances and runs calls on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keylane_core::Fault;
use wasmtime::Store;

use super::batch::Batch;
use super::bindings::batch::{BatchEventHandler, BatchEventHandlerPre};
use super::bindings::keyed::{KeyedEventHandler, KeyedEventHandlerPre};
use super::bindings::single::{EventHandler, EventHandlerPre};
use super::call::GuestFailure;
use super::clock::{Meter, TickClock};
use super::counters::GuestCounters;
use super::engine::Engine;
use super::grants::Grants;
use super::guest_log::SharedLineThrottle;
use super::host::{self, Host};
use super::inspect::HandlerInterface;
use super::load::{Component, LoadError};
use super::results::{self, InvalidResult, Results, StateLimits};
use super::rows::{self, RowExports};
use super::trap;

/// How long the first instance may take to start when the component is loaded.
const START_MAX: Duration = Duration::from_secs(5);

/// Maximum size of a result without the bytes of its outputs: records, lengths and reasons. [`data_max`] adds the bytes
/// of the outputs.
const RESULT_OVERHEAD_MAX: usize = 4 << 20;

/// With HTTP: maximum number of bytes that [`data_max`] adds for outputs. A higher `max_output_bytes` does not raise
/// it.
const HTTP_OUTPUT_BYTES_MAX: usize = results::EVENT_BYTES;

/// The options of a handler.
#[derive(Clone, Debug)]
pub struct HandlerOptions {
    /// The name in the configuration.
    pub name: String,
    /// Names of the outputs; [`GuestOutput::target`](super::GuestOutput::target) is an index into them.
    pub outputs: Vec<String>,
    /// How long a call may run or wait.
    pub timeout: Duration,
    /// How much CPU time a call may use.
    pub cpu_budget: Duration,
    /// Limit of the linear memory of one instance, in bytes, summed over all its memories.
    pub memory_max: usize,
    /// An instance with more memory than this after a call is dropped.
    pub reuse_max_memory: usize,
    /// An instance is dropped after this number of calls.
    pub reuse_max_calls: Option<u32>,
    /// Whether every call gets a new instance.
    pub fresh_instances: bool,
    /// The limits of the state of a lane; `None`: the handler has no state.
    pub state: Option<StateLimits>,
    /// What the handler may access besides its events and outputs.
    pub grants: Grants,
}

impl HandlerOptions {
    /// Returns the defaults: no outputs, no state, no grants, a timeout of 5 s, a memory limit of 64 MiB (a JavaScript engine
    /// needs more than 24 MiB, C with the default stack of zig 16 MiB).
    pub fn new(name: impl Into<String>) -> HandlerOptions {
        HandlerOptions {
            name: name.into(),
            outputs: Vec::new(),
            timeout: Duration::from_secs(5),
            cpu_budget: Duration::from_secs(1),
            memory_max: 64 << 20,
            reuse_max_memory: 48 << 20,
            reuse_max_calls: None,
            fresh_instances: false,
            state: None,
            grants: Grants::default(),
        }
    }
}

/// A handler that can be called.
pub struct Handler {
    id: u64,
    options: HandlerOptions,
    engine: Arc<Engine>,
    linked: Linked,
    interface: HandlerInterface,
    digest: Arc<str>,
    line_throttle: Arc<SharedLineThrottle>,
    counters: Arc<GuestCounters>,
}

enum Linked {
    Single(EventHandlerPre<Host>),
    Keyed(KeyedEventHandlerPre<Host>),
    Batch(BatchEventHandlerPre<Host>),
}

impl Handler {
    /// Links the component and creates a first instance, so that a component that can't start is refused before any
    /// event is read. A component whose interfaces do not fit the configured state is refused, too.
    pub fn new(
        engine: &Arc<Engine>,
        component: &Component,
        options: HandlerOptions,
    ) -> Result<Arc<Handler>, LoadError> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let interface = component.interface(&options.name, options.state.is_some())?;
        let link = |error: wasmtime::Error| LoadError::Link {
            name: component.name().to_owned(),
            reason: format!("{error:#}"),
        };
        let instance = engine
            .linker(options.grants.allowed_imports())
            .instantiate_pre(&component.compiled)
            .map_err(link)?;
        let linked = match interface {
            HandlerInterface::Handler => Linked::Single(EventHandlerPre::new(instance).map_err(link)?),
            HandlerInterface::KeyedHandler => {
                Linked::Keyed(KeyedEventHandlerPre::new(instance).map_err(link)?)
            }
            HandlerInterface::BatchHandler => {
                Linked::Batch(BatchEventHandlerPre::new(instance).map_err(link)?)
            }
        };
        let http = options.grants.http.as_ref().map(|grant| grant.counters().clone());
        let handler = Arc::new(Handler {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            options,
            engine: engine.clone(),
            linked,
            interface,
            digest: component.inspection().digest().into(),
            line_throttle: Arc::new(SharedLineThrottle::new(engine.clock().clone())),
            counters: GuestCounters::new(http),
        });
        handler.try_start(component.name())?;
        Ok(handler)
    }

    /// Returns the name in the configuration.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Returns the interface through which the component is called.
    pub fn interface(&self) -> HandlerInterface {
        self.interface
    }

    /// Returns the SHA-256 digest of the component's file, in hexadecimal.
    pub fn digest(&self) -> &Arc<str> {
        &self.digest
    }

    /// Returns the counters of what the handler's guests use.
    pub fn counters(&self) -> &Arc<GuestCounters> {
        &self.counters
    }

    /// Returns the names of the outputs.
    pub fn outputs(&self) -> &[String] {
        &self.options.outputs
    }

    /// Returns the limits of states; `None`: the handler has no state. With state, each call needs the state of every
    /// lane: see [`Batch::push_state`].
    pub fn state_limits(&self) -> Option<&StateLimits> {
        self.options.state.as_ref()
    }

    /// Returns how long a call may run or wait.
    pub fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// Returns how much CPU time a call may use.
    pub(super) fn cpu_budget(&self) -> Duration {
        self.options.cpu_budget
    }

    /// Returns whether the handler may send HTTP requests, so that its calls may have effects outside Kafka.
    pub fn uses_http(&self) -> bool {
        self.options.grants.http.is_some()
    }

    /// Returns the id of the handler in this process.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn clock(&self) -> &Arc<TickClock> {
        self.engine.clock()
    }

    /// Creates one instance and drops it, on a thread of its own, because the caller may be part of a runtime. `name`:
    /// the component, for messages.
    fn try_start(&self, name: &str) -> Result<(), LoadError> {
        let start = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|source| LoadError::NoRuntime { name: name.to_owned(), source })?;
            let meter = Arc::new(Meter::new(self.clock().clone()));
            meter.arm(START_MAX);
            meter.resume();
            let late = || GuestFailure::new(Fault::Timeout, format!("not ready after {START_MAX:?}"));
            runtime
                .block_on(async { tokio::time::timeout(START_MAX, self.instance(&meter)).await })
                .unwrap_or_else(|_| Err(late()))
                .map(drop)
                .map_err(|failure| start_error(name, failure))
        };
        std::thread::scope(|scope| match scope.spawn(start).join() {
            Ok(started) => started,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Creates an instance. The time of its start is charged to the call that needs the instance. A contract fault
    /// means that the exports have unexpected types, which is detected at load.
    pub(super) async fn instance(&self, meter: &Arc<Meter>) -> Result<Instance, GuestFailure> {
        let options = &self.options;
        let (line_throttle, counters) = (self.line_throttle.clone(), self.counters.clone());
        let host = Host::new(&options.name, options.memory_max, &options.grants, line_throttle, counters);
        let mut store = Store::new(self.engine.wasmtime(), host);
        store.limiter(|host| &mut host.limiter);
        store.set_max_component_handles(host::RESOURCES_MAX);
        store.set_hostcall_fuel(RESULT_OVERHEAD_MAX);
        store.epoch_deadline_callback(host::at_epoch);
        store.set_epoch_deadline(1);
        store.data_mut().meter = Some(meter.clone());
        let exports = match &self.linked {
            Linked::Single(linked) => linked.instantiate_async(&mut store).await.map(Exports::Single),
            Linked::Keyed(linked) => linked.instantiate_async(&mut store).await.map(Exports::Keyed),
            Linked::Batch(linked) => linked.instantiate_async(&mut store).await.map(Exports::Batch),
        };
        match exports {
            Ok(exports) => Ok(Instance { store, exports, calls: 0 }),
            Err(error) => Err(trap::no_instance(&error, &store.data().limiter)),
        }
    }
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler")
            .field("name", &self.options.name)
            .field("interface", &self.interface)
            .finish_non_exhaustive()
    }
}

/// One live instance. It must be dropped after any failure.
pub(super) struct Instance {
    store: Store<Host>,
    exports: Exports,
    /// The number of calls that the instance has served.
    calls: u32,
}

enum Exports {
    Single(EventHandler),
    Keyed(KeyedEventHandler),
    Batch(BatchEventHandler),
}

impl Instance {
    /// Returns whether the instance may serve another call.
    pub(super) fn may_stay(&self, handler: &Handler) -> bool {
        let options = &handler.options;
        !options.fresh_instances
            && options.reuse_max_calls.is_none_or(|max| self.calls < max)
            && self.store.data().limiter.memory() <= options.reuse_max_memory
    }

    /// Returns the counters of the instance's handler.
    pub(super) fn counters(&self) -> &GuestCounters {
        self.store.data().limiter.counters()
    }

    /// Runs one call of all rows. `results` must be clear. After an error it contains the rows done before the error;
    /// for a `batch-handler` that is none.
    pub(super) async fn call(
        &mut self,
        handler: &Handler,
        meter: &Arc<Meter>,
        batch: &Batch,
        results: &mut Results,
    ) -> Result<(), GuestFailure> {
        let (lanes, states) = (batch.lanes().len(), batch.states());
        let expected = if handler.options.state.is_some() { lanes } else { 0 };
        assert!(states == expected, "a call of {lanes} lanes has {states} states, expected {expected}");
        self.calls = self.calls.saturating_add(1);
        let (partition, offset) = batch.position(0).unwrap_or_default();
        let host = self.store.data_mut();
        host.meter = Some(meter.clone());
        host.limiter.begin();
        host.guest_log.begin(batch.topic());
        host.guest_log.at(partition, offset);
        self.store.set_epoch_deadline(1);
        self.store.set_hostcall_fuel(data_max(handler));
        let result = match &self.exports {
            Exports::Batch(exports) => {
                let guest = exports.keylane_handler_batch_handler();
                match guest.call_handle(&mut self.store, batch.columns()).await {
                    Ok(returned) => results
                        .accept(batch.lanes(), handler.outputs(), handler.state_limits(), returned)
                        .map_err(fault_of),
                    Err(error) => Err(trap::failure(&error, &self.store.data().limiter)),
                }
            }
            Exports::Single(exports) => {
                rows::run(&mut self.store, RowExports::Single(exports), handler, batch, results).await
            }
            Exports::Keyed(exports) => {
                rows::run(&mut self.store, RowExports::Keyed(exports), handler, batch, results).await
            }
        };
        let host = self.store.data_mut();
        host.guest_log.end();
        host.meter = None; // the instance's next call sets its own meter
        result.map_err(|failure| GuestFailure { row: results.fail(batch.lanes().len()), ..failure })
    }
}

fn start_error(name: &str, failure: GuestFailure) -> LoadError {
    let (name, reason) = (name.to_owned(), failure.message);
    let may_succeed_later = matches!(failure.fault, Fault::Timeout | Fault::Limit);
    match failure.fault {
        Fault::Contract => LoadError::Link { name, reason },
        Fault::Trap | Fault::Timeout | Fault::Cpu | Fault::Memory | Fault::Stack | Fault::Limit => {
            LoadError::Start { name, reason, may_succeed_later }
        }
    }
}

/// Returns the limit of a result, and of the data of one call of a host function. It is larger than the guest's memory,
/// so that a result with one oversized output can be read and the output named. A result that refers to the same bytes
/// many times exceeds it. With HTTP, host functions keep parts of requests: the limit is lower, and a larger output
/// causes a limit fault; one state is added to it.
fn data_max(handler: &Handler) -> usize {
    let memory = handler.options.memory_max;
    let state = handler.options.state.map_or(0, |limits| limits.max_bytes);
    let http_max = HTTP_OUTPUT_BYTES_MAX.saturating_add(state);
    let bytes = if handler.uses_http() { memory.min(http_max) } else { memory };
    RESULT_OVERHEAD_MAX.saturating_add(bytes)
}

fn fault_of(invalid: InvalidResult) -> GuestFailure {
    GuestFailure::new(invalid.fault, invalid.message)
}
