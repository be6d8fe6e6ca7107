//! Off WebAssembly there is no host to send anything: a function of the test answers.

use std::cell::RefCell;

use super::{Error, Request, Response, url};

/// A service that a test plays.
pub(crate) type Service = Box<dyn FnMut(&Request) -> Response>;

thread_local! {
    static SERVICE: RefCell<Option<Service>> = const { RefCell::new(None) };
}

/// Puts a service in place, and gives back the one before it.
pub(crate) fn replace(service: Option<Service>) -> Option<Service> {
    SERVICE.with(|place| place.replace(service))
}

pub(super) fn send(request: &Request) -> Result<Response, Error> {
    url::parts(&request.url)?;
    SERVICE.with(|place| match &mut *place.borrow_mut() {
        Some(service) => Ok(service(request)),
        None => Err(Error::Network("natively there is no service but that of `testing::http`".to_owned())),
    })
}
