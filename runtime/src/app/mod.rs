//! app

use crate::config;

/// How to run, beyond what the configuration says.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// Stop at what is the end of every partition when it is first assigned.
    pub until_end: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code.
    pub exit: Exit,
}

/// The exit codes of a run that began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: everything that was to be done is done.
    Fine,
    /// 1: something stands in the way; it was logged.
    Failed,
}

/// Runs the handlers until a signal, a stop or the end.
///
/// # Errors
///
/// Nothing can be run.
pub fn run(config: config::Checked, options: RunOptions) -> anyhow::Result<Outcome> {
    drop((config, options));
    anyhow::bail!("not built yet")
}
