//! Writes families of samples with the encoder of the library.

use std::fmt;

use keylane_core::{BOUNDS, Histogram};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::status::HandlerStatus;

/// The value of a sample.
pub(super) enum Value {
    Counter(u64),
    /// A counter of seconds.
    Seconds(f64),
    Gauge(i64),
    /// A gauge with a fraction, such as a time.
    Fraction(f64),
    /// A histogram, and the number of its units per second.
    Histogram(Histogram, f64),
}

/// A label of a sample.
pub(super) type Label<'a> = (&'static str, &'a str);

/// Writes families of samples.
pub(super) struct Families<'e> {
    pub(super) encoder: DescriptorEncoder<'e>,
}

impl Families<'_> {
    /// Writes one metric. Its type is that of its values.
    pub(super) fn write<'a>(
        &mut self,
        (name, help, kind): (&str, &str, MetricType),
        samples: impl Iterator<Item = (Vec<Label<'a>>, Value)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            let labels = labels.as_slice();
            let mut sample = metric.encode_family(&labels)?;
            match value {
                Value::Counter(value) => sample.encode_counter::<NoLabelSet, u64, u64>(&value, None)?,
                Value::Seconds(value) => sample.encode_counter::<NoLabelSet, f64, u64>(&value, None)?,
                Value::Gauge(value) => sample.encode_gauge(&value)?,
                Value::Fraction(value) => sample.encode_gauge(&value)?,
                Value::Histogram(histogram, per_second) => encode_histogram(sample, &histogram, per_second)?,
            }
        }
        Ok(())
    }

    pub(super) fn counter<'a>(
        &mut self,
        (name, help): (&str, &str),
        samples: impl Iterator<Item = (Vec<Label<'a>>, u64)>,
    ) -> fmt::Result {
        let samples = samples.map(|(labels, value)| (labels, Value::Counter(value)));
        self.write((name, help, MetricType::Counter), samples)
    }

    /// Writes a counter of seconds, without labels.
    pub(super) fn seconds(&mut self, (name, help): (&str, &str), value: f64) -> fmt::Result {
        let samples = std::iter::once((Vec::new(), Value::Seconds(value)));
        self.write((name, help, MetricType::Counter), samples)
    }

    /// Writes a gauge with a fraction.
    pub(super) fn fraction<'a>(
        &mut self,
        (name, help): (&str, &str),
        samples: impl Iterator<Item = (Vec<Label<'a>>, f64)>,
    ) -> fmt::Result {
        let samples = samples.map(|(labels, value)| (labels, Value::Fraction(value)));
        self.write((name, help, MetricType::Gauge), samples)
    }

    /// Writes a gauge that is a size or a count.
    pub(super) fn size<'a>(
        &mut self,
        about: (&str, &str),
        samples: impl Iterator<Item = (Vec<Label<'a>>, u64)>,
    ) -> fmt::Result {
        self.gauge(about, samples.map(|(labels, value)| (labels, count(value))))
    }

    /// Writes a histogram. `per_second`: the number of its units per second.
    pub(super) fn histogram<'a>(
        &mut self,
        (name, help): (&str, &str),
        per_second: f64,
        samples: impl Iterator<Item = (Vec<Label<'a>>, Histogram)>,
    ) -> fmt::Result {
        let samples = samples.map(|(labels, value)| (labels, Value::Histogram(value, per_second)));
        self.write((name, help, MetricType::Histogram), samples)
    }

    pub(super) fn gauge<'a>(
        &mut self,
        (name, help): (&str, &str),
        samples: impl Iterator<Item = (Vec<Label<'a>>, i64)>,
    ) -> fmt::Result {
        let samples = samples.map(|(labels, value)| (labels, Value::Gauge(value)));
        self.write((name, help, MetricType::Gauge), samples)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a bound is below 2^52, and a sum is rounded")]
fn encode_histogram(mut sample: MetricEncoder<'_>, histogram: &Histogram, per_second: f64) -> fmt::Result {
    let bounds = BOUNDS.iter().map(|&bound| bound as f64 / per_second).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts().iter().copied()).collect();
    let sum = histogram.sum() as f64 / per_second;
    sample.encode_histogram::<NoLabelSet>(sum, histogram.count(), &buckets, None)
}

/// Returns the label of a handler.
pub(super) fn labels(handler: &HandlerStatus) -> Vec<Label<'_>> {
    vec![("handler", handler.handler.as_str())]
}

/// Converts a count to the type of gauges.
pub(super) fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
