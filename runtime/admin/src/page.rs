//! The operator's page: static files without data. Its script requests the data.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};

/// A file of the page, with its type.
type File = ([(HeaderName, &'static str); 1], &'static str);

pub(crate) async fn index() -> File {
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], include_str!("../page/index.html"))
}

pub(crate) async fn style() -> File {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../page/page.css"))
}

pub(crate) async fn script() -> File {
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("../page/page.js"))
}

/// Browsers request an icon by themselves.
pub(crate) async fn no_icon() -> StatusCode {
    StatusCode::NO_CONTENT
}
