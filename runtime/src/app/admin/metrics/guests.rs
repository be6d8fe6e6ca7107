//! Metrics of what guests use: instances, memory and HTTP requests.

use std::fmt;

use crate::guest::{GuestUsage, HTTP_CLASSES};
use crate::status::HandlerStatus;

use super::Metrics;
use super::families::{Families, labels};

impl Metrics {
    pub(super) fn write_guests(&self, families: &mut Families<'_>) -> fmt::Result {
        let memory = self.with_guests().map(|(handler, guests)| (labels(handler), guests.memory_bytes));
        let about = (
            "keylane_guest_memory_bytes",
            "Linear memory of the live instances, idle ones included; the pages that were never written are not resident.",
        );
        families.size(about, memory)?;
        let instances = self.with_guests().flat_map(|(handler, guests)| {
            let states = [("idle", guests.idle_instances), ("busy", guests.busy_instances)];
            states.map(|(state, instances)| {
                (vec![("handler", handler.handler.as_str()), ("state", state)], instances.into())
            })
        });
        families
            .size(("keylane_guest_instances", "Live instances of the component, by state."), instances)?;
        let requests =
            self.with_guests().filter_map(|(handler, guests)| Some((handler, guests.http.as_ref()?)));
        let requests = requests.flat_map(|(handler, http)| {
            let name = handler.handler.as_str();
            let sample = move |grant, class, requests| {
                (vec![("handler", name), ("grant", grant), ("class", class)], requests)
            };
            let allowed = http.grants.iter().flat_map(move |of| {
                HTTP_CLASSES
                    .into_iter()
                    .zip(of.requests)
                    .map(move |(class, requests)| sample(&*of.grant, class, requests))
            });
            allowed.chain([sample("", "denied", http.denied)])
        });
        families.counter(
            (
                "keylane_http_requests",
                "HTTP requests of guests, by the grant that allowed them and the class of the response; an empty grant: none did.",
            ),
            requests,
        )
    }

    /// Returns the handlers whose component is loaded.
    fn with_guests(&self) -> impl Iterator<Item = (&HandlerStatus, &GuestUsage)> {
        let handlers = self.status.handlers.iter().zip(&self.guests);
        handlers.filter_map(|(handler, guests)| Some((handler, guests.as_ref()?)))
    }
}
