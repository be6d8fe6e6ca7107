//! Builds the parts of a run. Cheap failures come first: components before brokers.

use std::collections::VecDeque;
use std::ffi::CString;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::admit::{Filter, LaneRule};
use crate::changelog::Changelog;
use crate::config::{self, Checked, Cluster, FetchLimits, HumanSize};
use crate::guest::{
    AllowedHost, Cache, Compiler, Component, Engine, Grants, Handler, HandlerOptions, HttpClient, HttpGrant,
    OUTPUT_BYTES, StateLimits, Workers,
};
use crate::librdkafka::{Credentials, Wake, WakeHandle};
use crate::sink::{Route, Sink, TransactionalProducer};
use crate::source::Source;
use crate::source::embedded::EmbeddedBroker;

use super::super::admin::{AdminServer, Pulse};
use super::super::authentication::{ClientKind, RejectionSender};
use super::super::clock::Clock;
use super::super::event_loop::{
    Calling, Closing, Committing, EventLoop, Gates, HandlerLog, LastReport, LoopEvent, Mailbox, Observing,
    Publishing, Reading, Transacting,
};
use super::super::{RunEnd, RunOptions};
use super::embedded::EmbeddedRun;
use super::input_topics::InputTopics;
use super::keyed;
use super::options::{self, Access};

/// Calls per worker thread that are submitted ahead, so that no worker waits for the loop.
const CALLS_AHEAD: u32 = 2;
/// Time limit for the last outputs after all loops have ended.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Decides whether to keep waiting for the brokers. The argument is the reason why the brokers are not available, if it
/// is known.
pub(in crate::app) type KeepWaiting<'a> = &'a mut dyn FnMut(Option<&str>) -> ControlFlow<()>;

/// The parts that all handlers share, and those of each handler that the main thread keeps.
pub(in crate::app) struct Parts {
    /// The default of `client.id`.
    client_id: Arc<str>,
    pub(in crate::app) handlers: Vec<HandlerPart>,
    workers: Arc<Workers>,
    pub(super) sink: Arc<Sink>,
    /// The topics of all outputs and dead letters, in the order of the sink.
    pub(super) topics: Vec<String>,
    input_topics: InputTopics,
    /// The changelogs of each handler, in the order of its topics; empty: it has no keyed state, or the broker is the
    /// embedded one.
    pub(super) changelogs: Vec<Vec<Changelog>>,
    embedded: Option<EmbeddedRun>,
    /// The secret from a file, if one is configured.
    pub(in crate::app) credentials: Option<Arc<Credentials>>,
}

pub(in crate::app) struct HandlerPart {
    pub(in crate::app) mailbox: Arc<Mailbox>,
    handler: Arc<Handler>,
    wake: WakeHandle,
}

impl Parts {
    /// Loads the components and starts the workers, the embedded broker if it is configured, and the producer.
    pub(in crate::app) fn build(
        config: &Checked,
        options: &RunOptions,
        compiler: &Compiler,
        admin: &AdminServer,
        rejection_sender: &RejectionSender,
        keep_waiting: KeepWaiting<'_>,
    ) -> anyhow::Result<Parts> {
        let engine = Engine::new(options::engine_options(config))?;
        let credentials = options::credentials(config)?;
        let cache = config.runtime.cache_dir.as_ref().map(Cache::new);
        let http = http_client(config)?;
        let handlers = config
            .handlers
            .iter()
            .map(|handler| {
                admin.state.starting(format!("loading {}", handler.component.display()));
                let part = HandlerPart::load(&engine, handler, compiler, cache.as_ref(), http.as_ref())?;
                admin.state.component_loaded(&part.handler);
                Ok(part)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        admin.state.starting("connecting to the brokers".to_owned());
        let threads = config.runtime.workers.get();
        let workers = Workers::start(&engine, threads).context("can't start the worker threads")?;
        let mut embedded = match &config.kafka.cluster {
            Cluster::Brokers(_) => None,
            Cluster::Embedded(embedded) => Some(EmbeddedRun::new(start_broker(config, embedded)?)),
        };
        let topics = options::published_topics(config);
        let servers = Some(servers(config, embedded.as_ref()));
        let client_id: Arc<str> = admin.client_id().into();
        let access = Access { servers, credentials: credentials.clone(), client_id: Some(client_id.clone()) };
        let input_topics = InputTopics::query(config, access.clone(), keep_waiting)?;
        let changelogs = keyed::changelogs(config, &access, keep_waiting)?;
        let mut spec = options::sink_spec(config, access);
        spec.statistics = admin.producer_statistics(config);
        let routes = handlers.iter().map(HandlerPart::route).collect();
        let rejection_sender = rejection_sender.clone();
        let on_authentication_failure = Box::new(move || rejection_sender.report(ClientKind::Producer));
        let sink = Sink::start(&spec, routes, on_authentication_failure, &mut |waiting| {
            keep_waiting(waiting.reason.as_deref())
        })
        .map_err(|error| input_topics.with_missing(error))?;
        input_topics.require_existing()?;
        if let (Some(embedded), Some(read_back)) = (&mut embedded, &options.read_back) {
            embedded.start_reader(&topics, read_back)?;
        }
        let parts = Parts {
            client_id,
            handlers,
            workers: Arc::new(workers),
            sink: Arc::new(sink),
            topics,
            input_topics,
            changelogs,
            embedded,
            credentials,
        };
        let names: Vec<&str> = config.handlers.iter().map(|handler| handler.name.as_str()).collect();
        tracing::info!(
            handlers = names.join(", "),
            workers = threads,
            until_end = options.until_end,
            "starting"
        );
        Ok(parts)
    }

    /// Prepares the loop of every handler, and looks up what it needs before it joins its group. Waits for unavailable
    /// brokers. No group is joined yet: a member that is not polled blocks its group and its partitions.
    pub(in crate::app) fn prepare_loops(
        &mut self,
        config: &Checked,
        options: &RunOptions,
        clock: Clock,
        admin: &AdminServer,
        rejection_sender: &RejectionSender,
        keep_waiting: KeepWaiting<'_>,
    ) -> anyhow::Result<Vec<EventLoop>> {
        let handlers = u64::try_from(config.handlers.len()).unwrap_or(1);
        let arena_bytes = config.runtime.arena_bytes() / handlers;
        // The backlog of outputs may take the same amount of memory again.
        let backlog = usize::try_from(arena_bytes).unwrap_or(usize::MAX);
        let fetch = self.fetch_limits(config);
        let mut loops = Vec::new();
        for (handler_index, ((part, handler), fetch)) in
            self.handlers.iter().zip(&config.handlers).zip(fetch).enumerate()
        {
            let mut spec = options::source_spec(config, handler, self.access(config), options.until_end);
            spec.fetch = fetch;
            spec.feed = self.embedded.as_ref().map(EmbeddedRun::progress);
            spec.statistics = admin.consumer_statistics(config, handler);
            let source = Source::start(&spec, part.wake.clone(), &mut |waiting| {
                keep_waiting(waiting.reason.as_deref())
            })
            .with_context(|| format!("handler `{}` can't start", handler.name))?;
            let handler_index = u16::try_from(handler_index).context("too many handlers")?;
            let publishing =
                Publishing::new(self.sink.clone(), handler_index, handler, &self.topics, backlog);
            let calling = Calling::new(
                handler_index,
                part.handler.clone(),
                self.workers.clone(),
                part.mailbox.clone(),
                handler.max_output_bytes.unwrap_or_else(|| publishing.max_record_bytes().max(OUTPUT_BYTES)),
            );
            let transacting = self.transacting(config, handler, part)?;
            let rule = lane_rule(handler);
            let threads = u32::try_from(config.runtime.workers.get()).unwrap_or(1);
            let mut core = handler.core_config(arena_bytes);
            // Every process has its own seed, so that events that fail in several processes are not retried at the same
            // time.
            core.retry.seed = RandomState::new().hash_one(std::process::id());
            let now = clock.now();
            let pulse = Arc::new(Pulse::default());
            admin.state.loop_prepared(&handler.name, part.mailbox.clone(), pulse.clone());
            loops.push(EventLoop {
                core: keylane_core::Core::new(core),
                log: HandlerLog::new(handler.name.clone(), handler.topics.clone()),
                source,
                reading: Reading::new(
                    Filter::new(handler.filter.clone()),
                    rule,
                    handler.state.is_some(),
                    Gates::new(&handler.order, handler.transactions.is_some()),
                ),
                calling,
                publishing,
                committing: Committing::default(),
                transacting,
                keyed: self.keyed(config, handler, usize::from(handler_index))?,
                closing: Closing::new(
                    config.runtime.drain_timeout,
                    options.until_end.then(|| options::session_timeout(config)),
                ),
                observing: Observing::new(handler.group_id.clone(), config.admin.show_keys),
                clock,
                now,
                was_busy: false,
                events: VecDeque::new(),
                report: LastReport::new(now.uptime),
                mailbox: part.mailbox.clone(),
                pulse,
                rejection_sender: rejection_sender.clone(),
                wake: part.wake.clone(),
                worker_calls: (CALLS_AHEAD * threads).min(handler.lanes.max_concurrency),
            });
        }
        if let (Cluster::Embedded(config), Some(embedded)) = (&config.kafka.cluster, &mut self.embedded) {
            embedded.start_feed(&config.feeds)?; // only now: the feed must not run ahead of its readers
        }
        Ok(loops)
    }

    /// Starts the transactional producer of a handler, if it is configured.
    fn transacting(
        &self,
        config: &Checked,
        handler: &config::HandlerConfig,
        part: &HandlerPart,
    ) -> anyhow::Result<Transacting> {
        let topics = handler.topics.iter().map(|topic| CString::new(topic.as_str()));
        let topics = topics.collect::<Result<Vec<_>, _>>().context("a topic name contains a NUL byte")?;
        let spec = options::transaction_spec(config, handler, self.access(config));
        let producer = spec.map(|spec| {
            let mailbox = part.mailbox.clone();
            let on_event = Box::new(move |event| mailbox.put(LoopEvent::Transaction(event)));
            TransactionalProducer::start(&self.sink, spec, on_event)
        });
        let producer = producer.transpose().context("can't start the thread of a transactional producer")?;
        let transactions = handler.transactions.as_ref();
        let on_refused = transactions.map(|transactions| transactions.on_refused_output).unwrap_or_default();
        Ok(Transacting::new(producer, topics, self.embedded.is_some(), on_refused))
    }

    /// Returns the access of the clients to the brokers.
    pub(in crate::app) fn access(&self, config: &Checked) -> Access {
        let servers = Some(servers(config, self.embedded.as_ref()));
        let client_id = Some(self.client_id.clone());
        Access { servers, credentials: self.credentials.clone(), client_id }
    }

    /// Makes all handlers drain; `why` completes "stopped by".
    pub(in crate::app) fn drain(&self, why: &'static str) {
        self.handlers.iter().for_each(|handler| handler.mailbox.put(LoopEvent::Drain(why)));
    }

    /// Makes all handlers log a report.
    pub(in crate::app) fn report(&self) {
        self.handlers.iter().for_each(|handler| handler.mailbox.put(LoopEvent::Report));
    }

    /// Ends the shared parts, after all loops have ended.
    pub(in crate::app) fn finish(self, mut run_end: RunEnd) -> RunEnd {
        if run_end.stuck {
            std::mem::forget(self.workers); // dropping them would wait for the stuck call
            return run_end;
        }
        self.sink.flush(FLUSH_MAX);
        let broker = self.embedded.map(|embedded| embedded.finish(&mut run_end.failures));
        drop(self.sink); // before the broker: the sink would report the broker's end as an error
        drop(broker);
        run_end
    }

    /// Returns the fetch limits of each handler. They are divided by the number of its partitions once, here: the
    /// client can't change them later.
    fn fetch_limits(&self, config: &Checked) -> Vec<FetchLimits> {
        let count = |topic: &String| self.input_topics.partitions(topic).unwrap_or(PARTITIONS_ASSUMED);
        let of_handler = |handler: &config::HandlerConfig| {
            options::fetch_limits(config, handler.topics.iter().map(count).fold(0, u64::saturating_add))
        };
        let limits: Vec<FetchLimits> = config.handlers.iter().map(of_handler).collect();
        let ahead = limits.iter().map(FetchLimits::total).fold(0, u64::saturating_add);
        let queued = config.runtime.arena_bytes();
        tracing::info!(
            fetched_ahead = %HumanSize(ahead),
            queued = %HumanSize(queued),
            outputs = %HumanSize(queued),
            "memory limits, without components and their calls"
        );
        limits
    }
}

/// Number of partitions that is assumed for a topic whose number is unknown, to divide the fetch limit.
const PARTITIONS_ASSUMED: u64 = 64;

impl HandlerPart {
    /// Returns a route that passes delivery reports to the handler's loop.
    fn route(&self) -> Route {
        let mailbox = self.mailbox.clone();
        Box::new(move |deliveries| mailbox.put(LoopEvent::Delivered(deliveries.to_vec())))
    }

    fn load(
        engine: &Arc<Engine>,
        handler: &config::HandlerConfig,
        compiler: &Compiler,
        cache: Option<&Cache>,
        http: Option<&Arc<HttpClient>>,
    ) -> anyhow::Result<Self> {
        let grants = grants(handler, http);
        let component =
            Component::from_file(engine, &handler.component, grants.allowed_imports(), compiler, cache)
                .with_context(|| format!("handler `{}` can't be loaded", handler.name))?;
        let options = HandlerOptions {
            name: handler.name.clone(),
            outputs: handler.outputs.iter().map(|output| output.target.clone()).collect(),
            timeout: handler.timeout,
            cpu_budget: handler.cpu_budget,
            memory_max: usize::try_from(handler.memory).context("`memory` exceeds the address space")?,
            reuse_max_memory: usize::try_from(handler.reuse_max_memory).unwrap_or(usize::MAX),
            reuse_max_calls: handler.reuse_max_calls,
            fresh_instances: handler.fresh_instances,
            state: handler.state.as_ref().map(|state| StateLimits { max_bytes: state.max_value }),
            grants,
        };
        let loaded = Handler::new(engine, &component, options)
            .with_context(|| format!("handler `{}` can't be loaded", handler.name))?;
        let (interface, cached) = (loaded.interface(), component.from_cache());
        tracing::info!(handler = handler.name, %interface, digest = %loaded.digest(), cached, "component loaded");
        let wake = Wake::new().context("can't create a file descriptor to wake a handler's loop")?;
        Ok(HandlerPart { mailbox: Arc::new(Mailbox::new(wake.clone())), handler: loaded, wake })
    }
}

fn lane_rule(handler: &config::HandlerConfig) -> LaneRule {
    let lanes = &handler.lanes;
    LaneRule::new(lanes.ordering, &lanes.lane_key, lanes.no_key)
}

/// Starts the shared HTTP client, if any handler may use it.
fn http_client(config: &Checked) -> anyhow::Result<Option<Arc<HttpClient>>> {
    let is_used = config.handlers.iter().any(config::HandlerConfig::uses_http);
    is_used.then(|| Ok(Arc::new(HttpClient::start()?))).transpose()
}

fn grants(handler: &config::HandlerConfig, http: Option<&Arc<HttpClient>>) -> Grants {
    let config::GrantsConfig { env, http: hosts } = &handler.grants;
    let host = |host: &config::GrantedHost| AllowedHost {
        grant: host.text.as_str().into(),
        name: host.name.clone(),
        subdomains: host.subdomains,
        port: host.port,
    };
    let client = http.filter(|_| handler.uses_http());
    Grants {
        env: env.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect(),
        http: client
            .map(|client| HttpGrant::new(&*handler.name, hosts.iter().map(host).collect(), client.clone())),
    }
}

fn start_broker(config: &Checked, embedded: &config::EmbeddedConfig) -> anyhow::Result<EmbeddedBroker> {
    let broker =
        EmbeddedBroker::start(i32::from(embedded.partitions)).context("can't start the embedded broker")?;
    let outputs = options::published_topics(config);
    let inputs = config.handlers.iter().flat_map(|handler| &handler.topics);
    for topic in inputs.chain(&outputs).chain(embedded.feeds.iter().map(|feed| &feed.topic)) {
        broker.create_topic(topic).map_err(anyhow::Error::msg)?;
    }
    tracing::info!(bootstrap_servers = broker.bootstrap_servers(), "embedded broker started");
    Ok(broker)
}

/// Returns the bootstrap servers.
fn servers(config: &Checked, embedded: Option<&EmbeddedRun>) -> String {
    match &config.kafka.cluster {
        Cluster::Brokers(servers) => servers.clone(),
        Cluster::Embedded(_) => embedded.map(EmbeddedRun::bootstrap_servers).unwrap_or_default(),
    }
}
