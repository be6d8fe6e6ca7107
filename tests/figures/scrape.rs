//! The cost of the admin server: a no-op handler whose metrics are scraped every second, compared with one without the
//! server.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::options::Options;
use crate::pairs::{self, Pairs};
use crate::{keylane, report, topic};

/// The interval of the scrapes: much shorter than usual.
const INTERVAL: Duration = Duration::from_secs(1);

/// Measures pairs of runs.
pub(crate) fn measure(options: &Options) -> Result<()> {
    let cluster = pairs::broker()?;
    let topic = pairs::write_topic(&cluster, options.events, options.keys)?;
    let bootstrap = cluster.bootstrap();
    keylane::warm_up(&keylane::settings(&bootstrap, &topic::empty(&cluster), "noop", options), options)?;
    let scrapes = AtomicU64::new(0);
    let pairs = Pairs::run(
        options.pairs,
        || {
            let run =
                keylane::until_end(&keylane::settings(&bootstrap, &topic.name, "noop", options), options)?;
            Ok((run.working, run.usage))
        },
        || {
            let address = free_address()?;
            let settings = keylane::settings(&bootstrap, &topic.name, "noop", options);
            let settings = settings.set("admin", "listen", address.clone());
            let scraper = Scraper::start(format!("http://{address}/metrics"));
            let run = keylane::until_end(&settings, options)?;
            scrapes.fetch_add(scraper.stop(), Ordering::Relaxed);
            Ok(run)
        },
    )?;
    let scrapes = scrapes.into_inner();
    ensure!(scrapes > 0, "nothing was scraped: use more `--events`");
    report::line(&format!("{scrapes} scrapes"));
    pairs.print("server off", topic.events)
}

/// An address of loopback that nothing listens on.
fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// A thread that scrapes until it is stopped.
struct Scraper {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<u64>,
}

impl Scraper {
    fn start(url: String) -> Scraper {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
            let mut scrapes = 0;
            while !stopped.load(Ordering::Relaxed) {
                let scraped =
                    agent.get(&url).call().and_then(|mut response| response.body_mut().read_to_string());
                scrapes += u64::from(scraped.is_ok_and(|text| text.contains("keylane_build_info")));
                thread::park_timeout(INTERVAL);
            }
            scrapes
        });
        Scraper { stop, thread }
    }

    /// Returns the number of successful scrapes.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().unwrap_or(0)
    }
}
