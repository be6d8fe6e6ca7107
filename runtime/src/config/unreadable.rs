//! What the reader of types says, in the words of the file.

/// Below, two names have little in common. (0 to 1, Jaro-Winkler.)
const ALIKE: f64 = 0.8;

/// The reader's words, and the words of a file for them.
const WORDS: [(&str, &str); 3] = [
    ("expected a sequence", "expected a list: `[…]`, or a section in double brackets"),
    ("expected a map", "expected a section"),
    ("missing field", "there is no"),
];

/// A message, and what could be done.
pub(super) fn explain(message: &str) -> (String, Option<String>) {
    let mut text = message.to_owned();
    for (theirs, ours) in WORDS {
        text = text.replace(theirs, ours);
    }
    if let Some((before, _)) = text.split_once("expected struct ") {
        text = format!("{before}expected a section");
    }
    (text, nearest(message))
}

/// The expected name that is most like the one that was found.
fn nearest(message: &str) -> Option<String> {
    let (found, expected) = message.strip_prefix("unknown ")?.split_once(", expected ")?;
    let found = found.split('`').nth(1)?;
    let names = expected.split('`').skip(1).step_by(2);
    let alike = names.map(|name| (strsim::jaro_winkler(&found.to_lowercase(), name), name));
    let (best, name) = alike.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best >= ALIKE).then(|| format!("`{name}` is meant?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_nearly_right_is_told() {
        for (found, expected, meant) in [
            ("group-id", "`component`, `group_id`, `topics`", Some("`group_id`")),
            ("output", "`outputs`, `topics`", Some("`outputs`")),
            ("dead_letter", "one of `dead_letters`, `retry`", Some("`dead_letters`")),
            ("zebra", "`outputs`, `topics`", None),
        ] {
            let (_, hint) = explain(&format!("unknown field `{found}`, expected {expected}"));
            assert_eq!(hint, meant.map(|name| format!("{name} is meant?")));
        }
    }

    #[test]
    fn types_are_those_of_the_file() {
        for (theirs, ours) in [
            ("invalid type: integer `6`, expected a map", "invalid type: integer `6`, expected a section"),
            (
                "invalid type: boolean `false`, expected struct DeadLetters",
                "invalid type: boolean `false`, expected a section",
            ),
            ("missing field `topics`", "there is no `topics`"),
        ] {
            assert_eq!(explain(theirs).0, ours);
        }
    }
}
