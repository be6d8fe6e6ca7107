//! A steady load, in small batches.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use keylane_tests::kafka::{Producer, Record};

/// The time between two batches of the load.
const BEAT: Duration = Duration::from_millis(10);
/// Batches per second.
pub(crate) const BEATS_A_SECOND: usize = 100;
const KEYS: usize = 1_000;

/// Produces healthy events for this many seconds, and calls `beside` at each beat. Returns the duration in seconds.
#[expect(clippy::disallowed_methods, reason = "measuring time is the purpose of this program")]
pub(crate) fn steady(
    producer: &Producer,
    input: &str,
    (a_second, seconds): (usize, u64),
    mut beside: impl FnMut(usize) -> Result<()>,
) -> Result<f64> {
    let start = Instant::now();
    for beat in 0..usize::try_from(seconds)? * BEATS_A_SECOND {
        let each = a_second / BEATS_A_SECOND;
        let healthy = (beat * each..(beat + 1) * each)
            .map(|number| Record::new(format!("key-{}", number % KEYS), "done"));
        producer.hand_over(input, healthy)?;
        beside(beat)?;
        let due = start + BEAT * u32::try_from(beat + 1)?;
        sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(start.elapsed().as_secs_f64())
}
