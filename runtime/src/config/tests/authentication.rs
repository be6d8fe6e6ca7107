//! Who Keylane is, to the brokers.

use std::time::Duration;

use super::{MINIMAL, accept, refuse};

/// The minimal file with these lines in `[kafka]`, or in sections behind it.
fn kafka(lines: &str) -> String {
    MINIMAL.replacen("\n\n", &format!("\n{lines}\n\n"), 1)
}

#[test]
fn a_refusal_is_waited_out_for_so_long() {
    assert_eq!(accept(MINIMAL).kafka.auth_timeout, Duration::from_secs(60));
    assert_eq!(accept(&kafka("auth_timeout = \"5m\"")).kafka.auth_timeout, Duration::from_secs(300));
    refuse(
        &kafka("auth_timeout = \"2h\""),
        &["etc/keylane.toml:3:", "`kafka.auth_timeout` must be between 0s and 1h, not 2h"],
    );
}
