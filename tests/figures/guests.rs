//! The cost of guests that wait, fail, or are rarely called.

use anyhow::Result;
use keylane_tests::keylane::Settings;

use crate::numbers::{Median, format_number, mebibytes, micros_each, rate};
use crate::options::Options;
use crate::raw::Inspect;
use crate::report::{self, Table};
use crate::{keylane, pairs, raw, topic};

/// A handler that waits 10 ms for each event, with 1,000 calls in flight.
pub(crate) fn waits(options: &Options) -> Result<()> {
    let wait = |settings: Settings| settings.set("handlers.t.lanes", "max_concurrency", 1_000);
    measure(options, "pauses", &[("10 ms per call", &wait)])
}

/// A handler that traps on each event: one event per call, and 64 per call.
pub(crate) fn traps(options: &Options) -> Result<()> {
    let once = |settings: Settings| settings.set("handlers.t.retry", "max_attempts", 1);
    let single = |settings: Settings| once(settings).set("handlers.t", "max_batch", 1);
    let many = |settings: Settings| once(settings).set("handlers.t", "max_batch", 64);
    measure(options, "traps", &[("one event per call", &single), ("64 events per call", &many)])
}

/// A filter that drops 255 of 256 events by the prefix of a header, compared with only reading
/// them.
pub(crate) fn filter(options: &Options) -> Result<()> {
    let cluster = pairs::broker()?;
    let topic = pairs::write_topic(&cluster, options.events, options.keys)?;
    let bootstrap = cluster.bootstrap();
    let filtered = |topic: &str| {
        let header = raw::HEADER.to_string_lossy();
        let rules = serde_json::json!([{ "header": header, "prefix": "00" }]);
        keylane::settings(&bootstrap, topic, "noop", options).set("handlers.t", "filter", rules)
    };
    keylane::warm_up(&filtered(&topic::empty(&cluster)), options)?;
    raw::measure(&bootstrap, &topic, Inspect::Nothing)?;
    for (name, inspect) in
        [("raw loop", Inspect::Nothing), ("raw loop that reads the header", Inspect::Header)]
    {
        let pairs = pairs::Pairs::run(
            options.pairs,
            || raw::measure(&bootstrap, &topic, inspect),
            || keylane::until_end(&filtered(&topic.name), options),
        )?;
        pairs.print(name, topic.events)?;
    }
    Ok(())
}

type Variant<'v> = (&'v str, &'v dyn Fn(Settings) -> Settings);

fn measure(options: &Options, guest: &str, variants: &[Variant<'_>]) -> Result<()> {
    let cluster = pairs::broker()?;
    let topic = pairs::write_topic(&cluster, options.events, options.keys)?;
    let bootstrap = cluster.bootstrap();
    let settings = |topic: &str| keylane::settings(&bootstrap, topic, guest, options);
    keylane::warm_up(&settings(&topic::empty(&cluster)), options)?;
    let mut table = Table::new(&["round", "variant", "events/s", "µs CPU", "peak MiB", "others"]);
    let mut rates = Vec::new();
    for round in 1..=options.pairs {
        for (name, with) in variants {
            let run = keylane::until_end(&with(settings(&topic.name)), options)?;
            let events = rate(topic.events, run.working);
            rates.push((*name, events, micros_each(topic.events, run.usage.cpu)));
            table.row(vec![
                round.to_string(),
                (*name).to_owned(),
                format_number(events, 0),
                format_number(micros_each(topic.events, run.usage.cpu), 2),
                format_number(mebibytes(run.usage.peak_memory), 1),
                format_number(run.usage.others, 2),
            ]);
        }
    }
    table.print();
    for (name, _) in variants {
        let of_name = || rates.iter().filter(|(known, ..)| known == name);
        let events = Median::of(of_name().map(|(_, events, _)| *events));
        let cpu = Median::of(of_name().map(|(.., cpu)| *cpu));
        if let (Some(events), Some(cpu)) = (events, cpu) {
            let (events, cpu) = (events.text(0), cpu.text(2));
            report::line(&format!("median, {name}: {events} events/s, {cpu} µs of CPU per event"));
        }
    }
    Ok(())
}
