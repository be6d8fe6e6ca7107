//! Records that their topic refuses although they were checked: its limits have changed since the start, or are not
//! visible.

use keylane_core::Input;

use crate::app::event_loop::EventLoop;
use crate::app::event_loop::publishing::OUTPUT_REJECTED;
use crate::config::OnRefusedOutput;
use crate::sink::RefusedRecord;

use super::kept::KeptRecord;

impl EventLoop {
    /// Stops the partition of a refused output, or replaces the output by its dead letter, as configured. A refused dead
    /// letter or state stops the handler: nothing else can be done with its event.
    pub(super) fn record_refused(&mut self, refused: &RefusedRecord) {
        let EventLoop { log, transacting, keyed, closing, publishing, observing, now, .. } = self;
        let RefusedRecord { batch, at, topic, code } = refused;
        if keyed.as_ref().is_some_and(|keyed| keyed.is_changelog(*topic)) {
            let name = publishing.topic_name(*topic);
            return closing.stop(log, format!("the changelog `{name}` refuses a state: {code}"));
        }
        // `None`: the ownership of the event has ended.
        let Some(found) = transacting.kept.find(batch, *at) else { return };
        let KeptRecord { partition, ownership, offset, is_output } = found;
        let name = publishing.topic_name(*topic).to_owned();
        if !is_output {
            return closing.stop(log, log.dead_letter_refused_failure((partition, offset), &name, *code));
        }
        let stops = transacting.on_refused_output == OnRefusedOutput::Stop;
        log.output_refused(*now, (partition, offset), (&name, *code), stops);
        let event = (partition, offset);
        let dead_letter =
            batch.lend(*at, |record, _| publishing.dead_letter_of(record, event, *code, now.wall_ms));
        match dead_letter.flatten() {
            Some(dead_letter) if !stops => {
                observing.dead_letter_requested(OUTPUT_REJECTED);
                dead_letter.lend(|dead_letter| transacting.kept.replace(batch, *at, dead_letter));
            }
            Some(_) | None => {
                transacting.inputs.push_back(Input::EffectRefused { partition, ownership, offset });
            }
        }
    }
}
