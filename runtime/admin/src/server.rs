//! The server's thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::access::AccessRules;
use crate::address::{Listen, StartError};
use crate::backend::Backend;
use crate::connections::{is_loopback, serve};
use crate::event_stream::StreamSlots;
use crate::routes::RequestContext;

/// Interval of [`Backend::tick`].
const TICK: Duration = Duration::from_secs(1);

/// The running server; dropping it ends the server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Binds the address and starts the server; `None`: it is off.
    ///
    /// # Errors
    ///
    /// A configured address can't be bound, or the thread can't be started.
    pub fn start(
        listen: &Listen,
        access: AccessRules,
        backend: Arc<dyn Backend>,
    ) -> Result<Option<Server>, StartError> {
        let Some(listener) = listen.bind()? else { return Ok(None) };
        Ok(Some(Server::run(listener, access, backend)?))
    }

    fn run(
        listener: std::net::TcpListener,
        access: AccessRules,
        backend: Arc<dyn Backend>,
    ) -> io::Result<Server> {
        let address = listener.local_addr()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let context = RequestContext {
            backend,
            access: Arc::new(access),
            loopback: is_loopback(address),
            streams: StreamSlots::new(),
            reserved: false,
        };
        let thread = thread::Builder::new().name("keylane-admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                let ticks = tick(Arc::clone(&context.backend));
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    _ = stopped => {}
                    never = serve(listener, context) => match never {},
                    never = ticks => match never {},
                }
            });
        })?;
        Ok(Server { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the address that the server listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn tick(backend: Arc<dyn Backend>) -> std::convert::Infallible {
    let mut ticks = interval(TICK);
    // Ticks that were missed during a suspension are not made up.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        backend.tick();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin server's thread panicked");
        }
    }
}
