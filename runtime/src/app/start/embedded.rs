//! A run on the embedded broker: the broker, the feed of its input topics, and the reader of its outputs.

use std::sync::Arc;

use crate::config::FeedConfig;
use crate::librdkafka::Record;
use crate::source::embedded::{EmbeddedBroker, FeedProgress, Feeder, OutputReader};

use super::super::ReadBack;

/// The parts of a run on the embedded broker.
pub(super) struct EmbeddedRun {
    /// The feed, once it is started.
    feeder: Option<Feeder>,
    broker: EmbeddedBroker,
    progress: Arc<FeedProgress>,
    /// The reader of the outputs, if they are read.
    reader: Option<OutputReader>,
}

impl EmbeddedRun {
    pub(super) fn new(broker: EmbeddedBroker) -> EmbeddedRun {
        EmbeddedRun { feeder: None, broker, progress: FeedProgress::new(), reader: None }
    }

    pub(super) fn bootstrap_servers(&self) -> String {
        self.broker.bootstrap_servers()
    }

    /// Returns the progress of the feed, for its readers.
    pub(super) fn progress(&self) -> Arc<FeedProgress> {
        Arc::clone(&self.progress)
    }

    /// Starts to feed the input topics. Its readers must have been started.
    pub(super) fn start_feed(&mut self, feeds: &[FeedConfig]) -> anyhow::Result<()> {
        self.feeder = Some(Feeder::start(&self.broker, feeds, &self.progress)?);
        Ok(())
    }

    /// Starts to read these topics, and passes each record to `read_back`.
    pub(super) fn start_reader(&mut self, topics: &[String], read_back: &ReadBack) -> anyhow::Result<()> {
        let (names, read_back) = (topics.to_vec(), Arc::clone(read_back));
        let each = move |topic: usize, partition: i32, record: &Record<'_>| {
            read_back(names.get(topic).map_or("", String::as_str), partition, record);
        };
        self.reader = Some(OutputReader::start(&self.broker, topics, each)?);
        Ok(())
    }

    /// Ends the feed and the reader, and adds their errors to `failures`. Returns the broker, which must outlive the
    /// producer.
    pub(super) fn finish(self, failures: &mut Vec<String>) -> EmbeddedBroker {
        if let Some(feeder) = self.feeder
            && feeder.is_finished()
            && let Err(error) = feeder.finish()
        {
            failures.push(error.to_string());
        }
        if let Some(reader) = self.reader
            && let Err(error) = reader.finish()
        {
            failures.push(error.to_string());
        }
        self.broker
    }
}
