//! A broker with the topic and a matching configuration, for inspecting a run manually.

use std::fs;
use std::io::Read as _;

use anyhow::Result;

use crate::options::Options;
use crate::{keylane, pairs, report};

/// Serves until standard input ends.
pub(crate) fn serve(options: &Options) -> Result<()> {
    let cluster = pairs::broker()?;
    let bootstrap = cluster.bootstrap();
    let topic = pairs::write_topic(&cluster, options.events, options.keys)?;
    let file = keylane_tests::janitor::folder("serve").join("keylane.toml");
    fs::write(&file, keylane::settings(&bootstrap, &topic.name, "noop", options).to_toml())?;
    report::line(&format!("bootstrap {bootstrap}\ntopic {}\nconfiguration {}", topic.name, file.display()));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
