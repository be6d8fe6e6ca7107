//! Exports a function as a component.

/// Makes a function the handler of this component: `keylane_sdk::handler!(handle);`
///
/// The function has the signature `fn(&Event<'_>, &mut Effects) -> Result`. Use the macro once per crate, at the top
/// level. On native targets it only checks the signature, so that `cargo test` links.
#[macro_export]
macro_rules! handler {
    ($handle:path) => {
        const _: fn(&$crate::Event<'_>, &mut $crate::Effects) -> $crate::Result = $handle;

        $crate::export_batch_loop!($crate::run, $handle);
    };
}

/// Makes a function with state the handler of this component: `keylane_sdk::keyed_handler!(handle);`
///
/// The function has the signature `fn(&Event<'_>, &mut Option<T>, &mut Effects) -> Result`, where `T` is a
/// [`State`](crate::State). `None` is the state before the first event of a lane; setting it to `None` deletes the
/// state. The handler's configuration needs `delivery = "transactional"` and a section `[handlers.NAME.state]`: without
/// them, every event is retried, with this reason. Otherwise the same as [`handler!`](crate::handler!).
#[macro_export]
macro_rules! keyed_handler {
    ($handle:path) => {
        const _: fn() = || $crate::check_keyed_handler($handle);

        $crate::export_batch_loop!($crate::run_keyed, $handle);
    };
}

/// Fails to compile for a function with another signature.
#[doc(hidden)]
pub fn check_keyed_handler<T: crate::State>(
    _: fn(&crate::Event<'_>, &mut Option<T>, &mut crate::Effects) -> crate::Result,
) {
}

/// Exports `$run`, a batch loop, with the function that it calls for each row.
#[doc(hidden)]
#[macro_export]
macro_rules! export_batch_loop {
    ($run:path, $handle:path) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "exported functions have fixed names")]
        const _: () = {
            struct Component;

            impl $crate::bindings::Guest for Component {
                fn handle(batch: $crate::bindings::Batch) -> $crate::bindings::Results {
                    $run(&batch, $handle)
                }
            }

    $crate::bindings::export_batch_handler!(Component with_types_in $crate::bindings);
        };
    };
}
