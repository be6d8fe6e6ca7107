//! The processes that respond, as their admin servers describe them.

use std::path::Path;

use anyhow::anyhow;
use serde_json::{Map, Value, json};

use super::super::AdminArguments;
use super::super::admin_server::{AdminServers, Fetched, Target, nothing_answers};
use super::{or_error, system};

/// The orders in which lanes are requested: the worst ones by each.
const LANE_ORDERS: [&str; 2] = ["depth", "attempts"];
/// The number of lanes by each order.
const LANES: usize = 100;

/// Returns what each process reports.
pub(super) fn collect(file: &Path, arguments: &AdminArguments) -> Value {
    let servers = match AdminServers::select(file, arguments) {
        Ok(servers) => servers,
        Err(failure) => return or_error::<()>(Err(anyhow!(failure.describe().trim_end().to_owned()))),
    };
    let found = servers.fetch();
    if found.is_empty() {
        return or_error::<()>(Err(nothing_answers()));
    }
    found.into_iter().map(|fetched| process(&servers, fetched)).collect()
}

fn process(servers: &AdminServers, Fetched { target, status }: Fetched) -> Value {
    let address = target.to_string();
    let status: Value = match status.and_then(|text| Ok(serde_json::from_str(&text)?)) {
        Ok(status) => status,
        Err(error) => return json!({ "address": address, "error": format!("{error:#}") }),
    };
    json!({
        "address": address,
        "limits": system::of_process(&status),
        "notices": get_json(servers, &target, "/v1/notices"),
        "lanes": lanes(servers, &target, &status),
        "metrics": or_error(servers.get(&target, "/metrics")),
        "status": status,
    })
}

/// Returns the worst lanes of each handler, by each order.
fn lanes(servers: &AdminServers, target: &Target, status: &Value) -> Value {
    let handlers = status.get("handlers").and_then(Value::as_array).into_iter().flatten();
    let names = handlers.filter_map(|handler| handler.get("handler")?.as_str());
    let of_handler = |name: &str| {
        let by = |order: &str| {
            let path = format!("/v1/lanes?handler={}&by={order}&limit={LANES}", encoded(name));
            (order.to_owned(), get_json(servers, target, &path))
        };
        (name.to_owned(), LANE_ORDERS.into_iter().map(by).collect::<Map<_, _>>().into())
    };
    names.map(of_handler).collect::<Map<_, _>>().into()
}

fn get_json(servers: &AdminServers, target: &Target, path: &str) -> Value {
    or_error(servers.get(target, path).and_then(|text| Ok(serde_json::from_str::<Value>(&text)?)))
}

/// Returns text as the value of a query.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_in_a_query() {
        assert_eq!(encoded("orders-v1.2_x"), "orders-v1.2_x");
        assert_eq!(encoded("a&b=ü"), "a%26b%3D%C3%BC");
    }
}
