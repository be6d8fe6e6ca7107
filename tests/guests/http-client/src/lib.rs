//! Requests the URL in the value, and emits the result to the target `out`: the status and the body, or
//! the error.

use keylane_sdk::{Effects, Event, Result, http};

fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
    let answer = match http::get(event.text()?) {
        Ok(response) => format!("{} {}", response.status, response.text()?),
        Err(error) => error.to_string(),
    };
    effects.emit("out").key(event.key()).value(answer);
    Ok(())
}
keylane_sdk::handler!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use keylane_sdk::testing;

    #[test]
    fn a_response_and_an_error_are_both_emitted() {
        let _service = testing::http(|_| http::Response::new(200, "hello"));
        assert_eq!(testing::event().value("http://a").run(handle).outputs()[0].text(), "200 hello");
        let failed = testing::event().value("nowhere").run(handle);
        assert_eq!(failed.outputs()[0].text(), "HTTP request: `nowhere` is not an http or https URL");
    }
}
