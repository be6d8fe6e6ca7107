//! Does what the headers of the event request: see `script`.

keylane_sdk::handler!(script::follow);
