//! The parts of a bearer token that the client needs.
use std::ffi::CString;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// The expiry time that is passed for a token whose own can't be read: the end of the year 9999, in milliseconds since
/// 1970. Only the brokers can check such a token.
const NO_EXPIRY: i64 = 253_402_300_799_000;
/// The user of a token that names none, for messages only.
const NO_NAME: &str = "the token's user";

/// The reason why an expired token can't be used.
pub(super) const EXPIRED: &str = "it has expired: write a new token to the file";

/// A token of OAUTHBEARER.
pub(super) struct Token {
    pub(super) text: CString,
    /// The user.
    pub(super) principal: CString,
    /// The expiry time, in milliseconds since 1970.
    pub(super) expires_ms: i64,
}

impl Token {
    /// Reads expiry (`exp`) and user (`sub`) from the claims, if the text is a JWT. The brokers verify the signature.
    ///
    /// # Errors
    /// If the text has characters that a token can't have (RFC 6750), such as a byte order mark or a space.
    pub(super) fn new(text: &str) -> Result<Token, String> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it has a character that is not visible ASCII: write only the token, as UTF-8 without a byte \
                        order mark"
                .to_owned());
        }
        let claims = claims(text);
        let principal = claims.get("sub").and_then(Value::as_str).unwrap_or(NO_NAME);
        Ok(Token {
            text: CString::new(text).map_err(|_| "it contains a NUL byte".to_owned())?,
            principal: CString::new(principal).map_err(|_| "its user contains a NUL byte".to_owned())?,
            expires_ms: claims.get("exp").and_then(millis).unwrap_or(NO_EXPIRY),
        })
    }
}

/// Decodes the claims of a token; null if it is not a JWT.
fn claims(text: &str) -> Value {
    let mut parts = text.split('.');
    let payload = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(payload), Some(_), None) => payload.trim_end_matches('='),
        _ => return Value::Null,
    };
    let json = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    serde_json::from_slice(&json).unwrap_or(Value::Null)
}

/// Converts seconds to milliseconds, without a fraction of a second and up to `NO_EXPIRY`.
fn millis(seconds: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "casts of floats saturate, and the limit is below")]
    let whole = seconds.as_i64().or_else(|| seconds.as_f64().map(|seconds| seconds as i64))?;
    Some(whole.saturating_mul(1_000).min(NO_EXPIRY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        format!("{}.{}.{}", part(r#"{"alg":"none"}"#), part(claims), part("signature"))
    }

    #[test]
    fn user_and_expiry_are_those_of_the_claims() {
        let unknown = (NO_NAME, NO_EXPIRY);
        for (text, expected) in [
            (jwt(r#"{"sub":"alice","exp":1700000000}"#), ("alice", 1_700_000_000_000)),
            (jwt(r#"{"sub":"alice","exp":1700000000.75}"#), ("alice", 1_700_000_000_000)),
            (jwt(r#"{"exp":9e99}"#), unknown),
            (jwt(r#"{"sub":7,"exp":"soon"}"#), unknown),
            (jwt("[]"), unknown),
            (jwt("{"), unknown),
            ("opaque".to_owned(), unknown),
            ("a.!!.b".to_owned(), unknown),
        ] {
            let token = Token::new(&text).expect("any text may be a token");
            let found = (token.principal.to_str().expect("UTF-8"), token.expires_ms);
            assert_eq!((found, token.text.to_str()), (expected, Ok(text.as_str())), "{text}");
        }
        for text in ["a\0b", "canary\u{feff}", "\u{feff}canary", "can ary", "canary\u{2026}"] {
            let error = Token::new(text).err().expect("a token can't have these characters");
            assert!(error.contains("visible ASCII") && !error.contains("canary"), "{error}");
        }
    }
}
