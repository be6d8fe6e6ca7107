//! Whole reports, as displayed.

use super::{MINIMAL, check, with};

fn renders(text: &str, expected: &str) {
    assert_eq!(check(text).map(|_| ()).expect_err(text), expected, "{text}");
}

#[test]
fn a_syntax_error() {
    renders(
        "[kafka]\nbootstrap_servers = localhost\n",
        "\
error: string values must be quoted, expected literal string
 --> etc/keylane.toml:2:21
  |
2 | bootstrap_servers = localhost
  |                     ^^^^^^^^^
",
    );
}

#[test]
fn an_unknown_field() {
    renders(
        &with("[handlers.orders.rebalance]\n\trevoke_timout = \"1s\"", ""),
        "\
error: unknown field `revoke_timout`, expected `revoke_timeout`
 --> etc/keylane.toml:9:2
  |
9 |     revoke_timout = \"1s\"
  |     ^^^^^^^^^^^^^
  |
  = hint: did you mean `revoke_timeout`?
",
    );
}

#[test]
fn a_missing_setting() {
    renders(
        &MINIMAL.replace("group_id = \"orders\"\n", ""),
        "\
error: missing setting `group_id`
 --> etc/keylane.toml:4:1
  |
4 | [handlers.orders]
  | ^^^^^^^^^^^^^^^^^
",
    );
}

#[test]
fn several_problems_in_one_pass() {
    renders(
        &with("max_batch = 0\npipeline = true", "[kafka.client]\n\"group.id\" = \"x\""),
        "\
error: `handlers.orders.max_batch` must be between 1 and 4096, not 0
 --> etc/keylane.toml:8:13
  |
8 | max_batch = 0
  |             ^

error: `handlers.orders.pipeline` is not supported in this version of Keylane
 --> etc/keylane.toml:9:12
  |
9 | pipeline = true
  |            ^^^^
  |
  = hint: remove it

error: `group.id` can't be set: use `group_id` of a handler
  --> etc/keylane.toml:11:14
   |
11 | \"group.id\" = \"x\"
   |              ^^^
   |
   = hint: remove it
",
    );
}
