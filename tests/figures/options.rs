//! The command-line options of a measurement.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// The size of a measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Events in the topic.
    pub(crate) events: u64,
    /// Distinct keys among them.
    pub(crate) keys: u64,
    /// Measurements of each side.
    pub(crate) pairs: usize,
    /// The duration of a timed measurement, in seconds.
    pub(crate) seconds: u64,
    /// Keylane's worker threads; `None`: its default.
    pub(crate) workers: Option<u64>,
    /// For `before`, `w1`, `emit` and `keys`: an existing `keylane` binary. `None`: the one of this workspace, built
    /// with the profile of this program.
    pub(crate) binary: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { events: 2_000_000, keys: 100_000, pairs: 5, seconds: 60, workers: None, binary: None }
    }
}

impl Options {
    /// From pairs of name and value.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self::default();
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { bail!("missing value: {pair:?}") };
            if name == "--binary" {
                options.binary = Some(PathBuf::from(value));
                continue;
            }
            let number: u64 = value
                .replace('_', "")
                .parse()
                .with_context(|| format!("{name} must be a number, not {value:?}"))?;
            anyhow::ensure!(number > 0, "{name} must be at least 1");
            match name.as_str() {
                "--events" => options.events = number,
                "--keys" => options.keys = number,
                "--pairs" => options.pairs = usize::try_from(number)?,
                "--seconds" => options.seconds = number,
                "--workers" => options.workers = Some(number),
                other => bail!("unknown option {other}"),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::Options;

    fn parse(text: &str) -> anyhow::Result<Options> {
        Options::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn numbers_replace_defaults() {
        let options = parse("--events 1_000 --pairs 3").expect("both exist");
        assert_eq!(options, Options { events: 1_000, pairs: 3, ..Options::default() });
    }

    #[test]
    fn other_arguments_are_rejected() {
        for text in ["--events", "--events many", "--events 0", "--nonsense 1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
