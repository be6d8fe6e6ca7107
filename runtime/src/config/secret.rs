//! Values that must never be printed, recognized by their names.

/// Parts of the names of secrets.
const WORDS: [&str; 9] =
    ["password", "passwd", "passphrase", "secret", "token", "credential", "private", "ssl.key", "ssl_key"];

/// Returns whether the value with this name is a secret, which is masked in all messages.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("key") || name.ends_with(".pem") || WORDS.iter().any(|word| name.contains(word))
}

/// Returns whether a client property is never printed: a secret, or a `sasl.` property, which may reveal the identity
/// of the client.
pub(super) fn is_hidden_property(name: &str) -> bool {
    is_secret(name) || name.starts_with("sasl.")
}

/// Returns the part of the line at `line_start` that may be shown; `None`: all of it.
///
/// The line may be part of a multi-line value. Therefore the nearest line at or above it that begins a setting, and the
/// section, are checked, too.
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

/// Returns whether the line has a name, `=` and a value. The padding of a base64 text is not a setting.
fn begins_setting(line: &str) -> bool {
    line.split_once('=').is_some_and(|(name, value)| {
        let of_a_name = |c: char| c.is_ascii_alphanumeric() || "_-.\"' ".contains(c);
        !name.trim().is_empty() && name.chars().all(of_a_name) && !value.trim_matches(['=', ' ']).is_empty()
    })
}

fn upto_assignment(line: &str) -> &str {
    line.split_inclusive('=').next().unwrap_or("")
}
