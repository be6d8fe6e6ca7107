//! Does what the headers of the event request, as `scripted` does, and counts the done events of each key in its state: the
//! text `N CHECKSUM`, where N is their number. The checksum begins with 0; for each offset, in order, it is multiplied by 31
//! and the offset is added, modulo 2^64.

use keylane_sdk::{Bytes, Effects, Event, OrFail, Result};

fn handle(event: &Event<'_>, state: &mut Option<Bytes>, effects: &mut Effects) -> Result {
    let text = state.as_ref().map_or(Ok("0 0"), |state| std::str::from_utf8(&state.0))?;
    let (n, checksum) = text.split_once(' ').or_reject("the state is not two numbers")?;
    let (n, checksum): (u64, u64) = (n.parse()?, checksum.parse()?);
    let checksum = checksum.wrapping_mul(31).wrapping_add(event.offset());
    *state = Some(Bytes(format!("{} {checksum}", n + 1).into_bytes()));
    script::follow(event, effects)
}
keylane_sdk::keyed_handler!(handle);
