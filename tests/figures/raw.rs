//! The limit on this machine: a loop that takes 1,024 records per call from librdkafka and drops them.
//!
//! It copies nothing, has no other group members, and commits nothing. It runs as a separate process, so that the
//! kernel can report its usage.
#![allow(unsafe_code, reason = "librdkafka is a C library; the safety argument is below")]
// Safety argument: the queue belongs to a consumer that outlives it, and is destroyed before it. Messages are read
// through pointers that the preceding call has filled in, as many as it returned, and destroyed once. Their headers
// belong to them and are only read.

use std::ffi::CStr;
use std::process::{Command, Stdio};
use std::ptr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use keylane_tests::kafka;
use keylane_tests::wait::{Deadline, STATE_TIMEOUT};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use rdkafka_sys as sys;

use crate::child::{self, Usage};
use crate::report;
use crate::topic::{PARTITIONS, Topic};

/// The argument with which this program starts itself as the loop.
pub(crate) const WORKLOAD: &str = "raw";

/// Records per call.
const BATCH: usize = 1_024;

/// The header that the loop may read.
pub(crate) const HEADER: &CStr = c"trace-id";

/// The work of the loop for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inspect {
    /// The loop receives the record.
    Nothing,
    /// The loop also reads a header, as a filter must. The library parses all headers for that.
    Header,
}

/// One run of the loop in a separate process. Returns the time from the first record to the last, and the usage.
pub(crate) fn measure(bootstrap: &str, topic: &Topic, inspect: Inspect) -> Result<(Duration, Usage)> {
    let file = keylane_tests::janitor::folder("raw").join("seconds");
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([WORKLOAD, bootstrap, &topic.name, &topic.events.to_string()])
        .args((inspect == Inspect::Header).then_some("headers"))
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&file)?);
    let usage = child::run(&mut command)?;
    let seconds: f64 = std::fs::read_to_string(&file)?.trim().parse().context("the output of the loop")?;
    Ok((Duration::from_secs_f64(seconds), usage))
}

/// The loop itself; prints the seconds from the first record to the last.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [bootstrap, topic, events, inspect @ ..] = arguments else {
        bail!("usage: {WORKLOAD} BOOTSTRAP TOPIC EVENTS [headers]")
    };
    let consumer = consumer(bootstrap, topic)?;
    let took = if inspect.is_empty() {
        drain(&consumer, events.parse()?, |_| Ok(()))?
    } else {
        drain(&consumer, events.parse()?, find_header)?
    };
    report::line(&took.as_secs_f64().to_string());
    Ok(())
}

fn find_header(message: *mut sys::rd_kafka_message_t) -> Result<()> {
    let (mut headers, mut value, mut size) = (ptr::null_mut(), ptr::null(), 0);
    // SAFETY: see the top of the file.
    unsafe {
        let code = sys::rd_kafka_message_headers(message, &raw mut headers);
        ensure!(code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "the record has no headers");
        sys::rd_kafka_header_get_last(headers, HEADER.as_ptr(), &raw mut value, &raw mut size);
    }
    ensure!(size > 0, "the record lacks the header {HEADER:?}");
    Ok(())
}

/// A consumer that reads all partitions of `topic` from their beginning.
///
/// Its settings are librdkafka's defaults. Other values were tried (larger fetches, larger and
/// smaller queues), but none made a difference beyond the variation between two runs.
pub(crate) fn consumer(bootstrap: &str, topic: &str) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = kafka::client(bootstrap)
        .set("group.id", "figures-raw")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    Ok(consumer)
}

/// Takes `events` records, passes each to `inspect`, and returns the time from the first to the last.
#[expect(clippy::disallowed_methods, reason = "measuring time is the purpose of this program")]
pub(crate) fn drain(
    consumer: &BaseConsumer,
    events: u64,
    mut inspect: impl FnMut(*mut sys::rd_kafka_message_t) -> Result<()>,
) -> Result<Duration> {
    let mut batch = [ptr::null_mut(); BATCH];
    let mut read = 0;
    let mut first = None;
    let deadline = Deadline::after(STATE_TIMEOUT);
    // SAFETY: see the top of the file.
    let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
    while read < events {
        // SAFETY: see the top of the file.
        let taken = unsafe { sys::rd_kafka_consume_batch_queue(queue, 100, batch.as_mut_ptr(), BATCH) };
        let taken = usize::try_from(taken).context("librdkafka can't read")?;
        for message in batch.iter().take(taken) {
            // SAFETY: see the top of the file. The code is read as a number, because the enum may
            // lack it.
            let code = unsafe { ptr::addr_of!((**message).err).cast::<i32>().read() };
            if code == 0 {
                inspect(*message)?;
                read += 1;
            }
            // SAFETY: see the top of the file.
            unsafe { sys::rd_kafka_message_destroy(*message) };
        }
        if read > 0 && first.is_none() {
            first = Some(Instant::now());
        }
        ensure!(!deadline.passed(), "only {read} of {events} records were received");
    }
    let took = first.context("no records were read")?.elapsed();
    // SAFETY: see the top of the file.
    unsafe { sys::rd_kafka_queue_destroy(queue) };
    Ok(took)
}
