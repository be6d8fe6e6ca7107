//! A steady load, in small batches.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use keylane_tests::kafka::{Producer, Record};

/// The time between two batches of the load.
const BATCH_INTERVAL: Duration = Duration::from_millis(10);
/// Batches per second.
pub(crate) const BATCHES_PER_SECOND: usize = 100;
const KEYS: usize = 1_000;

/// Produces healthy events for this many seconds, and calls `after_batch` with the number of each batch. Returns the
/// duration in seconds.
#[expect(clippy::disallowed_methods, reason = "measuring time is the purpose of this program")]
pub(crate) fn steady(
    producer: &Producer,
    input: &str,
    (per_second, seconds): (usize, u64),
    mut after_batch: impl FnMut(usize) -> Result<()>,
) -> Result<f64> {
    let start = Instant::now();
    for batch in 0..usize::try_from(seconds)? * BATCHES_PER_SECOND {
        let batch_size = per_second / BATCHES_PER_SECOND;
        let healthy = (batch * batch_size..(batch + 1) * batch_size)
            .map(|number| Record::new(format!("key-{}", number % KEYS), "done"));
        producer.enqueue(input, healthy)?;
        after_batch(batch)?;
        let due = start + BATCH_INTERVAL * u32::try_from(batch + 1)?;
        sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(start.elapsed().as_secs_f64())
}
