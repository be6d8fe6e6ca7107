//! What limits a handler, in words.

use keylane_core::Load;

use crate::status::{LimitCause, LimitStatus, limit_cause};

use super::event_loop::{HandlerView, LimitedBy};

/// Returns what limits a handler, with the numbers that show it; `None`: it has no sample yet.
pub(super) fn limited_by(view: &HandlerView) -> Option<LimitStatus> {
    let cause = limit_cause(view)?;
    let (_, load) = view.observed.pace.cause?;
    Some(LimitStatus {
        cause: cause.code.to_owned(),
        meaning: cause.meaning.to_owned(),
        detail: detail(cause, load, view),
        remedy: cause.remedy.to_owned(),
    })
}

/// Returns what limits a handler; `None`: it has no sample yet.
pub(super) fn limit_cause(view: &HandlerView) -> Option<LimitCause> {
    Some(match view.observed.pace.cause?.0 {
        LimitedBy::CaughtUp => limit_cause::CAUGHT_UP,
        LimitedBy::Fetch => limit_cause::FETCH,
        LimitedBy::Cpu => limit_cause::CPU,
        LimitedBy::Concurrency => limit_cause::CONCURRENCY,
        LimitedBy::Lanes if deepest_share(view).is_some_and(|(_, share)| share >= 50) => {
            limit_cause::ONE_LANE
        }
        LimitedBy::Lanes => limit_cause::FEW_LANES,
        LimitedBy::Retries => limit_cause::RETRIES,
        LimitedBy::Outputs => limit_cause::OUTPUTS,
        LimitedBy::Service => limit_cause::SERVICE,
    })
}

/// Returns the number of queued events of the deepest lane, and its share of all queued events in percent.
fn deepest_share(view: &HandlerView) -> Option<(u64, u64)> {
    let events = u64::from(view.observed.deepest_lane.as_ref()?.events);
    Some((events, (100 * events).checked_div(queued(view))?))
}

fn queued(view: &HandlerView) -> u64 {
    view.core.partitions.iter().map(|partition| partition.open).sum()
}

/// Returns the numbers that show the cause. `load`: that of the last sample with this cause.
fn detail(cause: LimitCause, load: Load, view: &HandlerView) -> String {
    let (lag, queued) = (view.observed.pace.lag, queued(view));
    let lanes = load.lanes;
    match cause.code {
        "fetch" => format!("offsets not settled: {lag}; queued events: {queued}"),
        "cpu" => format!("lanes that wait for a worker: {}; running calls: {}", load.ready_lanes, load.calls),
        "concurrency" => {
            format!("lanes that wait for a call: {}; running calls: {}", load.ready_lanes, load.calls)
        }
        "one_lane" => {
            let name = view.observed.deepest_lane.as_ref().and_then(|lane| lane.name.as_deref());
            let (events, share) = deepest_share(view).unwrap_or_default();
            let lane = name.map_or("one lane".to_owned(), |name| format!("lane {name}"));
            format!("{lane} has {events} of {queued} queued events ({share} %)")
        }
        "few_lanes" => {
            format!("lanes with events: {lanes}; queued events: {queued}")
        }
        "retries" => format!("lanes that wait for their next attempt: {} of {lanes}", load.delayed_lanes),
        "outputs" => match &view.publishing.blocking_topic {
            Some(topic) => format!("too many outputs are queued for topic {topic}"),
            None => format!("events that wait for acknowledgements: {queued}"),
        },
        "service" => {
            let (waiting, calls) = (load.suspended_calls, load.calls);
            let p50 = view.observed.recent_call_times.quantile(0.5);
            let p50 =
                p50.map_or(String::new(), |p50| format!("; half of the calls take up to {}", in_millis(p50)));
            format!("{waiting} of {calls} calls wait for I/O or a timer{p50}")
        }
        _ => format!("queued events: {queued}; offsets not settled: {lag}"),
    }
}

/// Returns the time to the end of the logs at the rate of the last ten seconds; `None`: the lag does not decrease.
pub(super) fn catch_up_ms(view: &HandlerView) -> Option<u64> {
    let (pace, rates) = (view.observed.pace, view.observed.pace.rates?);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, of a positive number"
    )]
    let estimate = |lag: u64| (1_000.0 * lag as f64 / rates.catching_up) as u64;
    (pace.lag > 0 && rates.catching_up > 0.0).then(|| estimate(pace.lag))
}

/// Returns a time in microseconds as text, in milliseconds.
fn in_millis(micros: u64) -> String {
    format!("{} ms", micros.div_ceil(1_000))
}
