//! The progress of a run on a terminal: the steps of its start, and the events of a run that ends by itself.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::RunOptions;
use super::admin::AdminState;
use crate::logging::ProgressLine;
use crate::status::{ProcessState, ProcessStatus};

/// The interval at which the line is drawn.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long the end of the run waits until the line is removed: the terminal may be stopped.
const REMOVE_MAX: Duration = Duration::from_secs(1);

/// The thread that shows the progress. Dropping it removes the line.
pub(super) struct ProgressThread {
    stop: Option<Sender<()>>,
    removed: Receiver<()>,
}

impl ProgressThread {
    /// Shows the progress of a run; `None`: standard error is not a terminal, or the run prints its outputs (embedded
    /// broker).
    pub(super) fn show(state: &Arc<AdminState>, options: &RunOptions) -> Option<ProgressThread> {
        if options.read_back.is_some() {
            return None;
        }
        let line = ProgressLine::on_terminal()?;
        // The status waits for the event loops with a timeout. Without the runtime or the thread, nothing is shown.
        let runtime = Builder::new_current_thread().enable_time().build().ok()?;
        let (state, until_end) = (Arc::clone(state), options.until_end);
        let (stop, stopped) = mpsc::channel();
        let (remove, removed) = mpsc::channel::<()>();
        let run = move || {
            let _removed_at_the_end = remove;
            draw(&line, &runtime, &state, until_end, &stopped);
            drop(line);
        };
        thread::Builder::new().name("keylane-progress".to_owned()).spawn(run).ok()?;
        Some(ProgressThread { stop: Some(stop), removed })
    }
}

impl Drop for ProgressThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _removed_or_too_late = self.removed.recv_timeout(REMOVE_MAX);
    }
}

fn draw(line: &ProgressLine, runtime: &Runtime, state: &AdminState, until_end: bool, stopped: &Receiver<()>) {
    while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let status = runtime.block_on(state.collect());
        match &status.state {
            ProcessState::Starting { step, step_ms } => line.step(&format!("{step} ({} s)", step_ms / 1_000)),
            ProcessState::Running if until_end => {
                let (settled, left) = events(&status);
                line.events(settled, left);
            }
            ProcessState::Running => return,
            ProcessState::Draining => line.step("draining"),
        }
    }
}

/// Returns the number of settled events, and of those that are left as far as the ends of the logs are known.
fn events(status: &ProcessStatus) -> (u64, u64) {
    let settled = status.handlers.iter().map(|handler| handler.totals.settled).sum();
    let partitions = status.handlers.iter().flat_map(|handler| &handler.partitions);
    (settled, partitions.filter_map(|partition| partition.lag_unsettled).sum())
}
