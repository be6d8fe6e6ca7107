//! The host side of one instance: its limits and its WASI context, which is complete but has no capabilities except
//! the grants of its handler.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use super::clock::{Meter, StopReason};
use super::counters::GuestCounters;
use super::grants::Grants;
use super::guest_log::{GuestLog, SharedLineThrottle, Stream};
use super::http::InstanceHttp;

/// Maximum number of core instances of one component: a Rust or C guest has 1 to 5, componentize-py links about thirty.
pub(super) const CORE_INSTANCES_MAX: u32 = 50;

/// Maximum number of tables of one component: two for each core instance with an adapter, more for dynamic linking.
pub(super) const TABLES_MAX: u32 = 20;

/// Maximum number of elements of one table: the largest seen in a real guest (StarlingMonkey) is 7,712.
pub(super) const TABLE_ELEMENTS_MAX: usize = 20_000;

/// Maximum number of handles that a guest may have at once. The default of a million would let it use too much memory
/// of the host.
pub(super) const RESOURCES_MAX: usize = 1024;

/// Limit of one `get-random-bytes`: the default of 64 MiB is an allocation of the host.
pub(super) const RANDOM_BYTES_MAX: u64 = 64 << 10;

/// The data of a store.
pub(super) struct Host {
    wasi: WasiCtx,
    http: InstanceHttp,
    resources: ResourceTable,
    pub(super) limiter: Limiter,
    /// The meter of the running call.
    pub(super) meter: Option<Arc<Meter>>,
    pub(super) guest_log: Arc<GuestLog>,
}

impl Host {
    pub(super) fn new(
        handler: &str,
        memory_max: usize,
        grants: &Grants,
        line_throttle: Arc<SharedLineThrottle>,
        counters: Arc<GuestCounters>,
    ) -> Host {
        let guest_log = Arc::new(GuestLog::new(handler, line_throttle));
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(RESOURCES_MAX);
        let mut wasi = WasiCtx::builder();
        // No directories or arguments are given, and only the granted variables; standard input is at its end. Clocks
        // and randomness are real, because fake ones are worse for a guest than none.
        wasi.envs(&grants.env)
            .stdout(guest_log.stream(Stream::Stdout))
            .stderr(guest_log.stream(Stream::Stderr))
            .max_random_size(RANDOM_BYTES_MAX)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            // File operations on the few existing descriptors must not block the worker's other calls.
            .allow_blocking_current_thread(false);
        Host {
            wasi: wasi.build(),
            http: InstanceHttp::new(grants.http.clone()),
            resources,
            limiter: Limiter::new(memory_max, counters),
            meter: None,
            guest_log,
        }
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.resources }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let InstanceHttp { context, hooks } = &mut self.http;
        WasiHttpCtxView { ctx: context, table: &mut self.resources, hooks }
    }
}

/// Runs whenever guest code detects that the epoch has advanced: the guest yields, or is interrupted because its call
/// must end.
#[expect(clippy::needless_pass_by_value, reason = "the engine's callback passes its store by value")]
pub(super) fn at_epoch(store: StoreContextMut<'_, Host>) -> wasmtime::Result<UpdateDeadline> {
    let Some(meter) = &store.data().meter else { return Ok(UpdateDeadline::Continue(1)) };
    Ok(match meter.stop_reason() {
        Some(StopReason::Deadline | StopReason::OutOfCpu | StopReason::Cancelled) => {
            UpdateDeadline::Interrupt
        }
        None if meter.yield_if_ticked() => UpdateDeadline::Yield(1),
        None => UpdateDeadline::Continue(1),
    })
}

/// The memory limit of a store. It counts all linear memories, because a guest may have several. It exists as long as the
/// instance, so it also counts the instance and its memory for the handler.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_max: usize,
    memory: usize,
    /// The total that was requested when growth was last refused, since `begin`.
    refused: Option<usize>,
    counters: Arc<GuestCounters>,
}

impl Limiter {
    fn new(memory_max: usize, counters: Arc<GuestCounters>) -> Limiter {
        counters.instance_created();
        Limiter { memory_max, memory: 0, refused: None, counters }
    }

    /// Begins a call.
    pub(super) fn begin(&mut self) {
        self.refused = None;
    }

    /// Returns the memory that the guest has now, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// Returns the counters of the instance's handler.
    pub(super) fn counters(&self) -> &GuestCounters {
        &self.counters
    }

    /// Describes the refused growth if the guest hit the limit since `begin`, which is then the likely cause of a trap.
    pub(super) fn refusal(&self) -> Option<String> {
        let requested = self.refused?;
        Some(format!(
            "memory limit exceeded: the guest requested {requested} bytes in total, the limit is {}",
            self.memory_max
        ))
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false); // beyond the maximum that the memory itself declares
        }
        let sum = self.memory.saturating_add(desired.saturating_sub(current));
        if sum > self.memory_max {
            // The guest sees a failed growth, as the specification demands, and may handle it.
            self.refused = Some(sum);
            return Ok(false);
        }
        // If the system then fails to grow the memory, the growth stays counted: the callback for the failure does not
        // report the size, and a wrong subtraction would let a guest exceed its limit.
        self.counters.memory_grew(sum - self.memory);
        self.memory = sum;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= maximum.unwrap_or(TABLE_ELEMENTS_MAX).min(TABLE_ELEMENTS_MAX))
    }

    fn instances(&self) -> usize {
        to_usize(CORE_INSTANCES_MAX)
    }

    fn tables(&self) -> usize {
        to_usize(TABLES_MAX)
    }

    fn memories(&self) -> usize {
        to_usize(super::engine::MEMORIES_MAX)
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.counters.instance_dropped(self.memory);
    }
}

fn to_usize(small: u32) -> usize {
    usize::try_from(small).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_limit_applies_to_the_sum_of_all_memories() {
        let mut limiter = Limiter::new(100, Arc::default());
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert!(limiter.refusal().is_none());
        assert!(!limiter.memory_growing(40, 41, None).unwrap());
        assert_eq!(
            limiter.refusal().unwrap(),
            "memory limit exceeded: the guest requested 101 bytes in total, the limit is 100"
        );
        limiter.begin();
        assert!(limiter.refusal().is_none());
    }

    #[test]
    fn growth_beyond_the_memory_s_own_maximum_is_not_counted() {
        let mut limiter = Limiter::new(100, Arc::default());
        for _ in 0..10 {
            assert!(!limiter.memory_growing(10, 60, Some(50)).unwrap());
        }
        assert!(limiter.memory_growing(0, 100, None).unwrap());
    }

    #[test]
    fn an_instance_and_its_memory_are_counted_until_it_is_dropped() {
        let counters = Arc::new(GuestCounters::default());
        let of = |counters: &GuestCounters| {
            let now = counters.snapshot();
            (now.busy_instances, now.memory_bytes)
        };
        let mut limiter = Limiter::new(100, counters.clone());
        let mut other = Limiter::new(100, counters.clone());
        assert_eq!(of(&counters), (2, 0));
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(60, 70, None).unwrap());
        assert!(other.memory_growing(0, 5, None).unwrap());
        assert_eq!(of(&counters), (2, 75));
        assert!(!limiter.memory_growing(70, 101, None).unwrap());
        assert!(!limiter.memory_growing(70, 90, Some(80)).unwrap());
        assert_eq!(of(&counters), (2, 75), "refused growth takes no memory");
        drop(limiter);
        assert_eq!(of(&counters), (1, 5));
        drop(other);
        assert_eq!(of(&counters), (0, 0));
    }
}
