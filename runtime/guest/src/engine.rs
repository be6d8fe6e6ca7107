//! The one place that knows the WebAssembly engine's settings. Every one that matters is written out with
//! its reason, defaults included: a default that changes with an upgrade must not change Keylane.

use std::num::NonZeroUsize;
use std::sync::Arc;

use wasmtime::component::Linker;
use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy,
    WasmBacktraceDetails,
};

use super::clock::{Clock, Ticker};
use super::grants::Granted;
use super::host::{CORE_INSTANCES_MAX, Host, TABLE_ELEMENTS_MAX, TABLES_MAX};

/// Linear memories of one component. Real guests have one or two; more than four is not a handler.
pub(super) const MEMORIES_MAX: u32 = 4;

/// Live instances that one process may have: the address space has room for no more with two memories each.
pub const INSTANCES_MAX: u32 = 8_000;

/// Memory mappings that an instance needs: six (measured: with the 65,530 that Linux gives a process by default it ends
/// at 10,368), and the process itself needs some.
const MAPPINGS_EACH: u32 = 8;

/// Where Linux says how many it gives.
const MAPPINGS: &str = "/proc/sys/vm/max_map_count";

/// Up to here the address space (4 GiB for each memory of each instance) has room for every instance to
/// have all its memories; beyond, components have two.
const INSTANCES_WITH_ALL_MEMORIES: u32 = 4_000;

/// Stack of a guest. Recursion deeper than this is a trap ("stack overflow"), 20 frames are shown.
const WASM_STACK: usize = 512 << 10;

/// Stack of a fiber: the guest's and what host functions need on top. Only touched pages cost memory.
const FIBER_STACK: usize = 2 << 20;

/// Address space of a memory: with all that 32 bits can reach reserved, no access needs a bounds check
/// (they cost 30 to 45 % in a loop over bytes).
const MEMORY_RESERVATION: u64 = 4 << 30;

/// Memory of a slot that stays when its instance goes, so that the next one does not fault it in again.
const KEEP_RESIDENT: usize = 1 << 20;

/// Frames kept of a backtrace; a message shows fewer.
const BACKTRACE_FRAMES: usize = 16;

/// What can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Live instances over all handlers and workers: also the number of calls that can be out at once.
    pub max_instances: u32,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { max_instances: 512 }
    }
}

impl EngineOptions {
    /// Whether one process can have that here.
    ///
    /// # Errors
    ///
    /// When it asks for more than the system's limits allow, or for nothing.
    pub fn check(self) -> Result<(), EngineError> {
        let (asked, most) = (self.max_instances, instances_max(std::fs::read_to_string(MAPPINGS).ok()));
        match asked {
            0 => Err(EngineError::NoInstances),
            asked if asked > most => Err(EngineError::TooManyInstances { asked, most }),
            _ => Ok(()),
        }
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Asked for more than the system's limits allow.
    #[error(
        "{asked} guest instances are more than the {most} that one process can have here; lower the sum of \
             `max_concurrency`, raise `vm.max_map_count` where it is below 64,000, or use more processes"
    )]
    TooManyInstances {
        /// How many.
        asked: u32,
        /// As many as the system allows.
        most: u32,
    },
    /// None at all.
    #[error("at least one guest instance is needed; raise `max_concurrency`")]
    NoInstances,
    /// The engine itself refused.
    #[error("the WebAssembly engine did not start: {reason}")]
    Start {
        /// What it said.
        reason: String,
    },
}

/// The engine, what guests are linked with, and the ticker. One per process.
pub struct Engine {
    wasmtime: wasmtime::Engine,
    linker: Linker<Host>,
    /// The same, with HTTP.
    http_linker: Linker<Host>,
    clock: Arc<Clock>,
    max_instances: u32,
    _ticker: Ticker,
}

impl Engine {
    /// Reserves the pool and starts the ticker.
    pub fn new(options: EngineOptions) -> Result<Arc<Engine>, EngineError> {
        options.check()?;
        let pool = InstanceAllocationStrategy::Pooling(pool(options.max_instances));
        let wasmtime =
            wasmtime::Engine::new(config().allocation_strategy(pool)).map_err(|reason| start(&reason))?;
        let mut linker = Linker::new(&wasmtime);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(|reason| start(&reason))?;

        let mut http_linker = linker.clone();
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut http_linker)
            .map_err(|error| start(&error))?;

        let clock = Arc::new(Clock::default());
        let turned = wasmtime.clone();
        let ticker = Ticker::start(clock.clone(), move || turned.increment_epoch())
            .map_err(|error| EngineError::Start { reason: format!("no thread for the ticker: {error}") })?;
        Ok(Arc::new(Engine {
            wasmtime,
            linker,
            http_linker,
            clock,
            max_instances: options.max_instances,
            _ticker: ticker,
        }))
    }

    /// The clock that its ticker moves.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Live instances at most.
    pub fn max_instances(&self) -> u32 {
        self.max_instances
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.wasmtime
    }

    /// What a component with these grants is linked with.
    pub(super) fn linker(&self, granted: Granted) -> &Linker<Host> {
        if granted.http { &self.http_linker } else { &self.linker }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("max_instances", &self.max_instances).finish_non_exhaustive()
    }
}

/// An engine that compiles for every [`Engine`] and runs nothing. It reserves no pool: where instances live is no
/// part of what code depends on.
pub(super) fn for_compiling() -> Result<wasmtime::Engine, EngineError> {
    wasmtime::Engine::new(config().allocation_strategy(InstanceAllocationStrategy::OnDemand))
        .map_err(|reason| start(&reason))
}

fn start(reason: &wasmtime::Error) -> EngineError {
    EngineError::Start { reason: format!("{reason:#}") }
}

/// Everything that code depends on, and how it runs. Not where.
fn config() -> Config {
    let mut config = Config::new();
    compiling(&mut config);
    features(&mut config);
    running(&mut config);
    config
}

/// How code is made.
fn compiling(config: &mut Config) {
    config
        .strategy(Strategy::Cranelift)
        // Compiling without optimisation is hardly quicker (measured), and calls are what we are here for.
        .cranelift_opt_level(OptLevel::Speed)
        // A component of 18 MB takes 19 s on one core; it is compiled before anything is consumed.
        .parallel_compilation(true)
        // Results may differ in the bits of a NaN between machines. Nothing of ours compares them.
        .cranelift_nan_canonicalization(false)
        // Traps are told by where they happened: needed for the names of functions in messages.
        .generate_address_map(true)
        // So that profilers and debuggers can walk through guest frames.
        .native_unwind_info(true)
        // Debug information of guests would be translated at each compile: nobody attaches a debugger here.
        .debug_info(false)
        // Checks of the compiler against itself belong to the compiler's own tests.
        .cranelift_debug_verifier(false);
}

/// What guests may consist of.
fn features(config: &mut Config) {
    config
        .wasm_component_model(true)
        // Off, a call costs 1 µs less and a host call half: on, every call runs an event loop. Components
        // of the asynchronous ABI are refused when they are loaded.
        .concurrency_support(false)
        // What toolchains of today emit. (References and exceptions would need a garbage collector, which is
        // not built in: no guest needs one.)
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_multi_memory(true)
        .wasm_extended_const(true)
        .wasm_tail_call(true)
        .wasm_simd(true)
        .wasm_relaxed_simd(true)
        // The same event gives the same result on every machine.
        .relaxed_simd_deterministic(true)
        // 64-bit memories need a bounds check at every access, and components can't lift from them.
        .wasm_memory64(false)
        // Off, the page is 64 KiB and growth is counted in nothing smaller.
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false);
}

/// How code runs.
fn running(config: &mut Config) {
    config
        // What stops an endless loop: 0 to 2 % of a call. Fuel would be 3 to 12 %.
        .epoch_interruption(true)
        .consume_fuel(false)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        // Stacks are reused by instances of one organisation and never read before they are written.
        .async_stack_zeroing(false)
        // A trap's message names the functions. Looking up lines costs 4 ms per trap, so a storm of them
        // would be an outage.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES))
        // Hardware faults are the bounds check.
        .signals_based_traps(true)
        .memory_reservation(MEMORY_RESERVATION)
        // With the reservation it never has to, and code may keep the base address.
        .memory_may_move(false)
        // An instance starts as a copy-on-write image of its initial memory: 8 µs instead of a memcpy.
        .memory_init_cow(true)
        // Tables are filled when they are used; big guests have thousands of entries.
        .table_lazy_init(true);
}

/// Where instances live: slots that are reserved once and reused (an instance in 8 µs instead of 40).
fn pool(max_instances: u32) -> PoolingAllocationConfig {
    let memories = memories_per_component(max_instances);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(max_instances)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .total_core_instances(max_instances.saturating_mul(CORE_INSTANCES_MAX))
        .max_memories_per_component(memories)
        .max_memories_per_module(memories)
        .total_memories(max_instances.saturating_mul(memories))
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .total_tables(max_instances.saturating_mul(TABLES_MAX))
        .table_elements(TABLE_ELEMENTS_MAX)
        // Every live instance keeps the stack of its last call.
        .total_stacks(max_instances)
        // The limiter of each store counts; the pool only has to have room for what it may allow.
        .max_memory_size(usize::try_from(MEMORY_RESERVATION).unwrap_or(usize::MAX))
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_RESIDENT)
        // Resets only the pages that were touched, where the kernel (6.7 and later) can tell: 21 µs instead
        // of 42 for an instance and its first call.
        .pagemap_scan(Enabled::Auto)
        // Slots prefer the component that they had before.
        .max_unused_warm_slots(max_instances)
        // A slot is free as soon as its instance is gone: the pool's size is exact.
        .decommit_batch_size(1);
    pool
}

/// What the system's limit allows. One that can't be read is taken for the default.
fn instances_max(mappings: Option<String>) -> u32 {
    let mappings: Option<u32> = mappings.and_then(|text| text.trim().parse().ok());
    mappings.map_or(INSTANCES_MAX, |mappings| (mappings / MAPPINGS_EACH).min(INSTANCES_MAX))
}

fn memories_per_component(max_instances: u32) -> u32 {
    if max_instances <= INSTANCES_WITH_ALL_MEMORIES { MEMORIES_MAX } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_instances_that_cannot_be_is_refused() {
        let error = Engine::new(EngineOptions { max_instances: 8_001 }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "8001 guest instances are more than the 8000 that one process can have here; lower the sum of \
             `max_concurrency`, raise `vm.max_map_count` where it is below 64,000, or use more processes"
        );
        assert!(matches!(Engine::new(EngineOptions { max_instances: 0 }), Err(EngineError::NoInstances)));
    }

    #[test]
    fn the_system_s_limit_counts_where_it_is_lower() {
        let of = |text: &str| instances_max(Some(text.to_owned()));
        assert_eq!((of("65530\n"), of("1048576\n"), of("16000\n")), (8_000, 8_000, 2_000));
        assert_eq!((of("many"), instances_max(None)), (8_000, 8_000));
    }
}
