//! A progress line below the log, if standard error is a terminal.

use std::io::{IsTerminal as _, stderr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The templates of the line.
const STEP: &str = "{spinner} {wide_msg}";
const EVENTS: &str = "[{wide_bar}] {human_pos} of {human_len} events settled";

/// The line that is shown. Log lines are written above it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// The progress line of this process. Dropping it removes the line.
///
/// Its functions write to the terminal, which may be stopped for any length of time: only a thread that nothing waits
/// for may call them.
#[derive(Debug)]
pub struct ProgressLine(ProgressBar);

impl ProgressLine {
    /// Shows an empty line; `None`: standard error is not a terminal.
    pub fn on_terminal() -> Option<ProgressLine> {
        stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style(STEP));
            *shown() = Some(bar.clone());
            ProgressLine(bar)
        })
    }

    /// Shows the current step of the start, or that the process drains.
    pub fn step(&self, text: &str) {
        self.0.set_style(style(STEP));
        self.0.set_message(text.to_owned());
        self.0.tick();
    }

    /// Shows how many events are settled, and how many are left.
    pub fn events(&self, settled: u64, left: u64) {
        self.0.set_style(style(EVENTS));
        self.0.set_length(settled + left);
        self.0.set_position(settled);
        self.0.tick();
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        *shown() = None;
        self.0.finish_and_clear();
    }
}

/// Runs a function that writes to standard error, while the progress line is hidden.
pub(super) fn above_line<T>(write: impl FnOnce() -> T) -> T {
    let bar = shown().clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

fn shown() -> MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates of this file are valid")
}
