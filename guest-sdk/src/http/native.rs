//! On native targets, where no host sends requests, a function of the test answers them.

use std::cell::RefCell;

use super::{Error, Request, Response, url};

/// A service simulated by a test.
pub(crate) type Service = Box<dyn FnMut(&Request) -> Response>;

thread_local! {
    static SERVICE: RefCell<Option<Service>> = const { RefCell::new(None) };
}

/// Installs a service, and returns the previous one.
pub(crate) fn replace(service: Option<Service>) -> Option<Service> {
    SERVICE.with(|current| current.replace(service))
}

pub(super) fn send(request: &Request) -> Result<Response, Error> {
    url::parts(&request.url)?;
    SERVICE.with(|current| match &mut *current.borrow_mut() {
        Some(service) => Ok(service(request)),
        None => Err(Error::Network("on native targets, only `testing::http` answers requests".to_owned())),
    })
}
