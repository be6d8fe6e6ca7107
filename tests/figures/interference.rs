//! The effect of failing events on healthy ones. A steady load is handled with and without a
//! disturbance.

use anyhow::Result;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{Cluster, Producer, Record, unique};
use keylane_tests::keylane::{Keylane, Settings};

use crate::load::{self, BATCHES_PER_SECOND};
use crate::numbers::{float, format_number};
use crate::options::Options;
use crate::report::{self, Table};
use crate::{keylane, pairs, topic};

/// A key with 50 events per second, each of which fails until its retries are exhausted, among
/// 1,000 healthy keys with 20,000 events per second.
pub(crate) fn poison(options: &Options) -> Result<()> {
    let cluster = pairs::broker()?;
    let mut table = Table::new(&["disturbance", "healthy events/s", "CPU, cores", "relative to none"]);
    let baseline = run(&cluster, options, 20_000, None)?;
    let measured = run(
        &cluster,
        options,
        20_000,
        Some(Disturbance { value: "retry", per_second: 50, own_handler: false }),
    )?;
    row(&mut table, "none", baseline, baseline);
    row(&mut table, "a poison key", measured, baseline);
    table.print();
    Ok(())
}

/// A handler that spins, and one that exhausts its memory, next to a healthy one with 5,000 events
/// per second.
pub(crate) fn neighbours(options: &Options) -> Result<()> {
    let cluster = pairs::broker()?;
    let mut table = Table::new(&["neighbour", "healthy events/s", "CPU, cores", "relative to none"]);
    let baseline = run(&cluster, options, 5_000, None)?;
    row(&mut table, "none", baseline, baseline);
    for value in ["spin", "hoard"] {
        let measured =
            run(&cluster, options, 5_000, Some(Disturbance { value, per_second: 50, own_handler: true }))?;
        row(&mut table, value, measured, baseline);
    }
    table.print();
    Ok(())
}

#[derive(Clone, Copy)]
struct Disturbance {
    /// The value for the failing guest.
    value: &'static str,
    per_second: usize,
    /// Whether a separate handler receives it.
    own_handler: bool,
}

/// Healthy events per second, and cores used.
type Measured = (f64, f64);

fn row(table: &mut Table, name: &str, measured: Measured, baseline: Measured) {
    let share = format_number(measured.0 / baseline.0, 3);
    table.row(vec![name.to_owned(), format_number(measured.0, 0), format_number(measured.1, 2), share]);
}

fn run(
    cluster: &Cluster,
    options: &Options,
    per_second: usize,
    disturbance: Option<Disturbance>,
) -> Result<Measured> {
    let [input, output, other] = [(); 3].map(|()| unique("interference"));
    for name in [&input, &output, &other, &format!("{input}.dlq"), &format!("{other}.dlq")] {
        cluster.admin().create_topic(name, topic::PARTITIONS, &[]);
    }
    let settings = settings(
        cluster,
        &input,
        &output,
        disturbance.filter(|disturbance| disturbance.own_handler).map(|_| other.as_str()),
    );
    let mut running = Keylane::run(&settings, &[]);
    running.wait_for("the partitions", |line| keylane::has_message(line, keylane::ASSIGNED));
    let producer = Producer::new(&cluster.bootstrap());
    let ticks = running.cpu_ticks().unwrap_or(0);
    let took = load::steady(&producer, &input, (per_second, options.seconds), |batch| match disturbance {
        Some(disturbance) if batch % (BATCHES_PER_SECOND / disturbance.per_second) == 0 => {
            let target = if disturbance.own_handler { &other } else { &input };
            producer.enqueue(target, [Record::new("failing", disturbance.value)])
        }
        _ => Ok(()),
    })?;
    let done: i64 = cluster.admin().watermarks(&output).iter().map(|watermarks| watermarks.high).sum();
    let cores = float(running.cpu_ticks().unwrap_or(ticks) - ticks) / 100.0 / took;
    report::line(&format!(
        "{done} healthy events done in {took:.1} s, with {:?}",
        disturbance.map(|disturbance| disturbance.value)
    ));
    running.kill();
    Ok((float(u64::try_from(done)?) / took, cores))
}

fn settings(cluster: &Cluster, input: &str, output: &str, other: Option<&str>) -> Settings {
    let guest = guest("failing");
    let settings = Settings::new(&cluster.bootstrap())
        .handler(&guest, input, &unique("interference"))
        .set("handlers.t.outputs.out", "topic", output)
        .set("runtime", "cache_dir", keylane::cache().display().to_string());
    let Some(other) = other else { return settings };
    settings
        .set("handlers.u", "component", guest.display().to_string())
        .set("handlers.u", "topics", vec![other])
        .set("handlers.u", "group_id", unique("interference"))
        .set("handlers.u.outputs.out", "topic", output)
}
