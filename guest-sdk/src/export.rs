//! Exports a function as a component.

/// Makes a function the handler of this component: `keylane_sdk::handler!(handle);`
///
/// The function has the signature `fn(&Event<'_>, &mut Effects) -> Result`. Use the macro once per crate, at the top
/// level. On native targets it only checks the signature, so that `cargo test` links.
#[macro_export]
macro_rules! handler {
    ($handle:path) => {
        const _: fn(&$crate::Event<'_>, &mut $crate::Effects) -> $crate::Result = $handle;

        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "exported functions have fixed names")]
        const _: () = {
            struct Component;

            impl $crate::bindings::Guest for Component {
                fn handle(batch: $crate::bindings::Batch) -> $crate::bindings::Results {
                    $crate::run(&batch, $handle)
                }
            }

    $crate::bindings::export_batch_handler!(Component with_types_in $crate::bindings);
        };
    };
}
