//! All settings of the WebAssembly engine. Every setting that matters is written out with its reason, defaults
//! included: a default that changes with an upgrade must not change Keylane.

use std::num::NonZeroUsize;
use std::sync::Arc;

use wasmtime::component::Linker;
use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy,
    WasmBacktraceDetails,
};

use super::clock::{TickClock, Ticker};
use super::grants::AllowedImports;
use super::host::{CORE_INSTANCES_MAX, Host, TABLE_ELEMENTS_MAX, TABLES_MAX};

/// Maximum number of linear memories of one component. Real guests have one or two; a component with more than four is
/// not a handler.
pub(super) const MEMORIES_MAX: u32 = 4;

/// Maximum number of live instances of one process: the address space has no capacity for more with two memories each.
const INSTANCES_MAX: u32 = 8_000;

/// Memory mappings that are counted for an instance. An instance needs six (measured: with the 65,530 that Linux allows
/// a process by default, the limit is 10,368 instances), and the process itself needs some.
const MAPPINGS_PER_INSTANCE: u32 = 8;

/// Where Linux reports the limit of mappings.
const MAX_MAP_COUNT_FILE: &str = "/proc/sys/vm/max_map_count";

/// Up to this number the address space (4 GiB for each memory of each instance) has capacity for all memories of
/// every instance; beyond it, components may have two.
const INSTANCES_WITH_ALL_MEMORIES: u32 = 4_000;

/// Stack of a guest. Deeper recursion is the fault `Stack`.
const WASM_STACK: usize = 512 << 10;

/// Stack of a fiber: the guest's and that of the host functions it calls. Only touched pages cost memory.
const FIBER_STACK: usize = 2 << 20;

/// Address space of a memory: with all 32-bit addresses reserved, no access needs a bounds check
/// (the checks cost 30 to 45 % in a loop over bytes).
const MEMORY_RESERVATION: u64 = 4 << 30;

/// Memory of a slot that stays resident after its instance is dropped, so that the next instance does not fault it in
/// again.
const KEEP_RESIDENT: usize = 1 << 20;

/// Frames kept of a backtrace; a message shows fewer.
const BACKTRACE_FRAMES: usize = 16;

/// Options of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Live instances over all handlers and workers, which is also the number of calls that can be in progress at once.
    pub max_instances: u32,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { max_instances: 512 }
    }
}

impl EngineOptions {
    /// Checks that this machine allows one process that many instances.
    ///
    /// # Errors
    ///
    /// If the number exceeds the system's limits, or is 0.
    pub fn check(self) -> Result<(), EngineError> {
        let requested = self.max_instances;
        let max = instances_max(std::fs::read_to_string(MAX_MAP_COUNT_FILE).ok());
        match requested {
            0 => Err(EngineError::NoInstances),
            _ if requested > max => Err(EngineError::TooManyInstances { requested, max }),
            _ => Ok(()),
        }
    }
}

/// Why the engine could not be created.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// More instances than the system's limits allow.
    #[error(
        "{requested} guest instances exceed the limit of {max} for one process on this machine; lower the sum of \
             `max_concurrency`, raise `vm.max_map_count` where it is below 64,000, or use more processes"
    )]
    TooManyInstances {
        /// The requested number.
        requested: u32,
        /// The number that the system allows.
        max: u32,
    },
    /// No instances.
    #[error("at least one guest instance is needed; raise `max_concurrency`")]
    NoInstances,
    /// The engine itself failed.
    #[error("the WebAssembly engine failed to start: {reason}")]
    Start {
        /// Its error message.
        reason: String,
    },
}

/// The engine, the linkers of guests, and the ticker. One per process.
pub struct Engine {
    wasmtime: wasmtime::Engine,
    linker: Linker<Host>,
    /// The same linker, with HTTP.
    http_linker: Linker<Host>,
    clock: Arc<TickClock>,
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

        let clock = Arc::new(TickClock::default());
        let on_tick = wasmtime.clone();
        let ticker = Ticker::start(clock.clone(), move || on_tick.increment_epoch()).map_err(|error| {
            EngineError::Start { reason: format!("can't start the ticker thread: {error}") }
        })?;
        Ok(Arc::new(Engine {
            wasmtime,
            linker,
            http_linker,
            clock,
            max_instances: options.max_instances,
            _ticker: ticker,
        }))
    }

    /// Returns the clock that the ticker advances.
    pub fn clock(&self) -> &Arc<TickClock> {
        &self.clock
    }

    /// Returns the maximum number of live instances.
    pub fn max_instances(&self) -> u32 {
        self.max_instances
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.wasmtime
    }

    /// Returns the linker for a component with these allowed imports.
    pub(super) fn linker(&self, allowed: AllowedImports) -> &Linker<Host> {
        if allowed.http { &self.http_linker } else { &self.linker }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("max_instances", &self.max_instances).finish_non_exhaustive()
    }
}

/// Creates an engine that compiles for every [`Engine`] and runs nothing. It reserves no pool: code does not depend on
/// where instances are allocated.
pub(super) fn for_compiling() -> Result<wasmtime::Engine, EngineError> {
    wasmtime::Engine::new(config().allocation_strategy(InstanceAllocationStrategy::OnDemand))
        .map_err(|reason| start(&reason))
}

fn start(reason: &wasmtime::Error) -> EngineError {
    EngineError::Start { reason: format!("{reason:#}") }
}

/// Configures what the code depends on and how it runs, but not where instances are allocated.
fn config() -> Config {
    let mut config = Config::new();
    compiling(&mut config);
    features(&mut config);
    running(&mut config);
    config
}

/// Configures how code is compiled.
fn compiling(config: &mut Config) {
    config
        .strategy(Strategy::Cranelift)
        // Compiling without optimisation is hardly faster (measured), and the speed of calls matters most.
        .cranelift_opt_level(OptLevel::Speed)
        // A component of 18 MB takes 19 s on one core, and it is compiled before anything is consumed.
        .parallel_compilation(true)
        // Results may differ in the bits of a NaN between machines. Keylane does not compare them.
        .cranelift_nan_canonicalization(false)
        // Traps are identified by their address: needed for the names of functions in messages.
        .generate_address_map(true)
        // Profilers and debuggers need it to walk through guest frames.
        .native_unwind_info(true)
        // Debug information of guests would be translated at each compile, but no debugger is attached here.
        .debug_info(false)
        // Checks of the compiler against itself belong to the compiler's own tests.
        .cranelift_debug_verifier(false);
}

/// Configures the WebAssembly features that guests may use.
fn features(config: &mut Config) {
    config
        .wasm_component_model(true)
        // Without it, a call costs 1 µs less and a host call half as much, because no call runs an event loop.
        // Components with the asynchronous ABI are refused when they are loaded.
        .concurrency_support(false)
        // The features that current toolchains use. (References and exceptions would need a garbage collector, which is
        // not built in: no guest needs one.)
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_multi_memory(true)
        .wasm_extended_const(true)
        .wasm_tail_call(true)
        .wasm_simd(true)
        .wasm_relaxed_simd(true)
        // Relaxed SIMD gives the same result on every machine.
        .relaxed_simd_deterministic(true)
        // 64-bit memories need a bounds check at every access, and the component model does not support them.
        .wasm_memory64(false)
        // Without it, the page is 64 KiB, and memory grows in no smaller units.
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false);
}

/// Configures how code runs.
fn running(config: &mut Config) {
    config
        // Stops an endless loop, and costs 0 to 2 % of a call. Fuel would cost 3 to 12 %.
        .epoch_interruption(true)
        .consume_fuel(false)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        // All guests belong to one operator, and no code reads a stack before writing it.
        .async_stack_zeroing(false)
        // A trap's message names the functions. Resolving line numbers costs 4 ms per trap, so a burst of traps
        // would be an outage.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES))
        // Hardware faults replace bounds checks.
        .signals_based_traps(true)
        .memory_reservation(MEMORY_RESERVATION)
        // With the reservation a memory never has to move, and code may cache its base address.
        .memory_may_move(false)
        // An instance starts as a copy-on-write image of its initial memory: 8 µs instead of a memcpy.
        .memory_init_cow(true)
        // Tables are filled on first use; big guests have thousands of entries.
        .table_lazy_init(true);
}

/// Configures where instances are allocated: in slots that are reserved once and reused (8 µs per instance instead of
/// 40).
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
        // The limiter of each store enforces the limit; the pool only needs capacity for what a limiter may allow.
        .max_memory_size(usize::try_from(MEMORY_RESERVATION).unwrap_or(usize::MAX))
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_RESIDENT)
        // Resets only the pages that were touched, where the kernel (6.7 and later) reports them: 21 µs instead
        // of 42 for an instance and its first call.
        .pagemap_scan(Enabled::Auto)
        // A slot is preferably reused for the component that it had before.
        .max_unused_warm_slots(max_instances)
        // A slot is free as soon as its instance is dropped: the pool's size is exact.
        .decommit_batch_size(1);
    pool
}

/// Returns the number of instances that the system's limit of mappings allows. If the limit is unreadable, Linux's
/// default is assumed.
fn instances_max(mappings: Option<String>) -> u32 {
    let mappings: Option<u32> = mappings.and_then(|text| text.trim().parse().ok());
    mappings.map_or(INSTANCES_MAX, |mappings| (mappings / MAPPINGS_PER_INSTANCE).min(INSTANCES_MAX))
}

fn memories_per_component(max_instances: u32) -> u32 {
    if max_instances <= INSTANCES_WITH_ALL_MEMORIES { MEMORIES_MAX } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_or_no_instances_are_refused() {
        let error = Engine::new(EngineOptions { max_instances: 8_001 }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "8001 guest instances exceed the limit of 8000 for one process on this machine; lower the sum of \
             `max_concurrency`, raise `vm.max_map_count` where it is below 64,000, or use more processes"
        );
        assert!(matches!(Engine::new(EngineOptions { max_instances: 0 }), Err(EngineError::NoInstances)));
    }

    #[test]
    fn a_lower_limit_of_the_system_applies() {
        let of = |text: &str| instances_max(Some(text.to_owned()));
        assert_eq!((of("65530\n"), of("1048576\n"), of("16000\n")), (8_000, 8_000, 2_000));
        assert_eq!((of("many"), instances_max(None)), (8_000, 8_000));
    }
}
