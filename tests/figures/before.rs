//! What a change costs: a no-op handler under this build of Keylane, compared with the same under another build.

use anyhow::{Context as _, Result};

use crate::options::Options;
use crate::pairs::{self, Pairs};
use crate::{keylane, topic};

/// Measures interleaved pairs of runs, the other build first.
pub(crate) fn measure(options: &Options) -> Result<()> {
    options.binary.as_deref().context("`before` needs `--binary FILE`, the other build of keylane")?;
    let now = Options { binary: None, ..options.clone() };
    let cluster = pairs::broker()?;
    let topic = pairs::write_topic(&cluster, options.events, options.keys)?;
    let bootstrap = cluster.bootstrap();
    for build in [options, &now] {
        keylane::warm_up(&keylane::settings(&bootstrap, &topic::empty(&cluster), "noop", build), build)?;
    }
    let run = |build: &Options| {
        keylane::until_end(&keylane::settings(&bootstrap, &topic.name, "noop", build), build)
    };
    let pairs = Pairs::run(options.pairs, || run(options).map(|run| (run.working, run.usage)), || run(&now))?;
    pairs.print("before", topic.events)
}
