//! The whole path: one output per event, acknowledged, compared with a plain consume-produce loop.
#![allow(unsafe_code, reason = "librdkafka is a C library; the safety argument is below")]
// Safety argument: the message is alive while it is read, its key and value are copied by librdkafka before it
// returns (`RD_KAFKA_MSG_F_COPY`), and the copy of its headers belongs to librdkafka once they are sent and is ours
// to destroy if they are not.

use std::ffi::{CStr, CString};
use std::process::{Command, Stdio};
use std::ptr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use keylane_tests::kafka;
use keylane_tests::wait::STATE_TIMEOUT;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer as _};
use rdkafka_sys as sys;

use crate::child::{self, Usage};
use crate::options::Options;
use crate::pairs::{self, Pairs};
use crate::{keylane, raw, report, topic};

/// The argument with which this program starts itself as the loop.
pub(crate) const WORKLOAD: &str = "raw-emit";

/// W6: a handler that emits each event unchanged.
pub(crate) fn measure(options: &Options) -> Result<()> {
    let cluster = pairs::broker()?;
    let topic = pairs::write_topic(&cluster, options.events, options.keys)?;
    let bootstrap = cluster.bootstrap();
    let echo = |input: &str, output: &str| {
        keylane::settings(&bootstrap, input, "echo", options).set("handlers.t.outputs.out", "topic", output)
    };
    let (nothing, nowhere) = (topic::empty(&cluster), topic::empty(&cluster));
    keylane::warm_up(&echo(&nothing, &nowhere), options)?;
    // The output is deleted after each run: it must not occupy the disk during the next one.
    let with_output = |run: &mut dyn FnMut(&str) -> Result<()>| {
        let output = topic::empty(&cluster);
        let result = run(&output);
        cluster.admin().delete_topic(&output);
        result
    };
    let pairs = Pairs::run(
        options.pairs,
        || {
            let mut measured = None;
            with_output(&mut |output| {
                measured = Some(one_loop(&bootstrap, &topic, output)?);
                Ok(())
            })?;
            measured.context("the loop returned no result")
        },
        || {
            let mut measured = None;
            with_output(&mut |output| {
                measured = Some(keylane::until_end(&echo(&topic.name, output), options)?);
                Ok(())
            })?;
            measured.context("keylane returned no result")
        },
    )?;
    pairs.print("raw loop", topic.events)
}

fn one_loop(bootstrap: &str, topic: &topic::Topic, output: &str) -> Result<(Duration, Usage)> {
    let file = keylane_tests::janitor::folder("raw").join("seconds");
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([WORKLOAD, bootstrap, &topic.name, &topic.events.to_string(), output])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&file)?);
    let usage = child::run(&mut command)?;
    let seconds: f64 = std::fs::read_to_string(&file)?.trim().parse().context("the output of the loop")?;
    Ok((Duration::from_secs_f64(seconds), usage))
}

/// The loop itself; prints the seconds from the first record to the last acknowledgement.
#[expect(clippy::disallowed_methods, reason = "measuring time is the purpose of this program")]
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [bootstrap, topic, events, output] = arguments else {
        bail!("usage: {WORKLOAD} BOOTSTRAP TOPIC EVENTS OUTPUT")
    };
    let producer: BaseProducer = kafka::client(bootstrap)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .create()?;
    let consumer = raw::consumer(bootstrap, topic)?;
    let name = CString::new(output.as_str())?;
    let mut first = None;
    raw::drain(&consumer, events.parse()?, |message| {
        first.get_or_insert_with(Instant::now);
        // SAFETY: see the top of the file.
        while !unsafe { send(&producer, &name, message) }? {
            producer.poll(Duration::from_millis(10));
        }
        producer.poll(Duration::ZERO);
        Ok(())
    })?;
    producer.flush(STATE_TIMEOUT).context("records stay unacknowledged")?;
    let took = first.context("no records were read")?.elapsed();
    report::line(&took.as_secs_f64().to_string());
    Ok(())
}

/// Produces a copy of a message. Returns `false` if the producer's queue is full.
unsafe fn send(
    producer: &BaseProducer<DefaultProducerContext>,
    topic: &CStr,
    message: *mut sys::rd_kafka_message_t,
) -> Result<bool> {
    use sys::rd_kafka_vtype_t as kind;
    type Union = sys::rd_kafka_vu_s__bindgen_ty_1;
    let bytes =
        |start, size| Union { mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr: start, size } };
    let entry = |vtype, u| sys::rd_kafka_vu_t { vtype, u };
    let copy = sys::RD_KAFKA_MSG_F_COPY;
    // SAFETY: see the top of the file.
    unsafe {
        let mut original = ptr::null_mut();
        let headers = if sys::rd_kafka_message_headers(message, &raw mut original) as i32 == 0 {
            sys::rd_kafka_headers_copy(original)
        } else {
            ptr::null_mut()
        };
        let entries = [
            entry(kind::RD_KAFKA_VTYPE_TOPIC, Union { cstr: topic.as_ptr() }),
            entry(kind::RD_KAFKA_VTYPE_MSGFLAGS, Union { i: copy }),
            entry(kind::RD_KAFKA_VTYPE_KEY, bytes((*message).key, (*message).key_len)),
            entry(kind::RD_KAFKA_VTYPE_VALUE, bytes((*message).payload, (*message).len)),
            entry(kind::RD_KAFKA_VTYPE_HEADERS, Union { headers }),
        ];
        let error = sys::rd_kafka_produceva(producer.client().native_ptr(), entries.as_ptr(), entries.len());
        if error.is_null() {
            return Ok(true);
        }
        let code = sys::rd_kafka_error_code(error);
        sys::rd_kafka_error_destroy(error);
        if !headers.is_null() {
            sys::rd_kafka_headers_destroy(headers);
        }
        if code as i32 == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL as i32 {
            Ok(false)
        } else {
            bail!("the producer rejects a record: {}", code as i32)
        }
    }
}
