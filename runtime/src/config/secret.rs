//! What must never be printed, told by its name.

/// Parts of names whose values are secrets.
const WORDS: [&str; 9] =
    ["password", "passwd", "passphrase", "secret", "token", "credential", "private", "ssl.key", "ssl_key"];

/// Whether a value with this name is a secret in itself: it is masked wherever it turns up in a message.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("key") || name.ends_with(".pem") || WORDS.iter().any(|word| name.contains(word))
}

/// Whether a client property is kept out of everything that is printed. Wider than [`is_secret`]: all of
/// `sasl.` says who we are.
pub(super) fn is_hidden_property(name: &str) -> bool {
    is_secret(name) || name.starts_with("sasl.")
}

/// What may be shown of the line that starts at `line_start`; `None`: all of it.
///
/// The line may be any part of a value that runs over many lines, so the nearest line at or above it that
/// begins a setting decides too, and so does the section.
pub(super) fn visible_part(text: &str, line_start: usize) -> Option<&str> {
    let line = text.get(line_start..)?.lines().next()?;
    if is_header(line) {
        return None;
    }
    let upwards = || std::iter::once(line).chain(text.get(..line_start).unwrap_or("").lines().rev());
    let setting = upwards().find(|line| begins_setting(line) || is_header(line)).unwrap_or(line);
    let section = upwards().find(|line| is_header(line)).unwrap_or("");
    let hidden = [line, setting, section].into_iter().any(|line| {
        let line = line.to_ascii_lowercase();
        WORDS.iter().chain(&[".pem", "sasl"]).any(|word| line.contains(word))
    });
    hidden.then(|| if begins_setting(line) { upto_assignment(line) } else { "" })
}

fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

/// Whether the line is a name, `=` and something. The padding of a base64 text is no setting.
fn begins_setting(line: &str) -> bool {
    line.split_once('=').is_some_and(|(name, value)| {
        let of_a_name = |c: char| c.is_ascii_alphanumeric() || "_-.\"' ".contains(c);
        !name.trim().is_empty() && name.chars().all(of_a_name) && !value.trim_matches(['=', ' ']).is_empty()
    })
}

fn upto_assignment(line: &str) -> &str {
    line.split_inclusive('=').next().unwrap_or("")
}
