//! What a handler may reach besides its events and outputs. By default nothing.

use std::fmt;
use std::sync::Arc;

use super::http::HttpGrant;

/// What one handler was granted.
#[derive(Clone, Default)]
pub struct Grants {
    /// Names and values of the variables in its environment.
    pub env: Vec<(String, String)>,
    /// Where it may send HTTP requests, and through what.
    pub http: Option<Arc<HttpGrant>>,
}

impl Grants {
    /// What a component may import because of them.
    pub fn imports(&self) -> Granted {
        Granted { http: self.http.is_some() }
    }
}

impl fmt::Debug for Grants {
    /// Without the values of variables: they may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Grants").field("env", &names).field("http", &self.http).finish()
    }
}

/// What a component may import besides standard WASI and types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// `wasi:http`, for requests that go out.
    pub http: bool,
}
