//! Client properties with special treatment: those with two names, those that users can't set, and those of the Java
//! client.

/// Aliases of librdkafka properties, each with the canonical name.
const ALIASES: [(&str, &str); 12] = [
    ("bootstrap.servers", "metadata.broker.list"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("sasl.mechanism", "sasl.mechanisms"),
    ("sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.id"),
    ("sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.secret"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("linger.ms", "queue.buffering.max.ms"),
    ("retries", "message.send.max.retries"),
    ("compression.type", "compression.codec"),
    ("acks", "request.required.acks"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("enable.auto.commit", "auto.commit.enable"),
];

/// Properties that users can't set, by canonical name, each with the reason.
const RESERVED: [(&str, &str); 26] = [
    ("metadata.broker.list", "use `bootstrap_servers` in `[kafka]`"),
    ("group.id", "use `group_id` of a handler"),
    ("group.instance.id", "use `group_instance_id` of a handler: one process has several consumers"),
    ("auto.commit.enable", "an offset is committed only when every event below it is settled"),
    ("auto.commit.interval.ms", "Keylane commits offsets itself: see `commit.interval` of a handler"),
    ("enable.auto.offset.store", "an offset is committed only when every event below it is settled"),
    ("enable.partition.eof", "it is always on: it accounts for control records at the end of a partition"),
    ("auto.offset.reset", "a partition is never moved silently: see `start` and `out_of_range` of a handler"),
    ("partition.assignment.strategy", "use `assignor` in `[kafka]`"),
    ("group.protocol", "this version of Keylane supports only the classic protocol"),
    ("enable.idempotence", "it is always on: without it outputs may be duplicated and reordered"),
    ("request.required.acks", "outputs are always acknowledged by all replicas, so that no event is lost"),
    ("message.timeout.ms", "outputs never expire: an outage must delay events, not lose them"),
    ("transactional.id", "use `runtime.instance`: the id also contains the group and the handler"),
    ("transaction.timeout.ms", "use `transactions.timeout` of a handler"),
    ("queued.max.messages.kbytes", "it is a share of `memory_budget` in `[runtime]`"),
    ("queued.min.messages", "prefetching is limited by `memory_budget` in `[runtime]`"),
    ("batch.size", "it is derived from the size limits of the output topics"),
    ("message.send.max.retries", "outputs are retried until the brokers store or reject them"),
    ("enable.gapless.guarantee", "Keylane resends outputs itself, in the order of their lane"),
    ("queue.buffering.max.messages", "in-flight outputs are limited per topic"),
    ("queue.buffering.max.kbytes", "in-flight outputs are limited per topic"),
    ("partitioner", "outputs go to the partition that Java clients choose for their key (`murmur2_random`)"),
    ("allow.auto.create.topics", "see `create_topics` in `[kafka]`"),
    ("check.crcs", "it is always on: a damaged batch must not look like a gap"),
    (
        "delivery.report.only.error",
        "an event settles when its outputs are acknowledged, so success is reported too",
    ),
];

/// Properties of Kafka's Java client that librdkafka does not have, each with the alternative.
const JAVA_ONLY: [(&str, &str); 30] = [
    ("max.poll.records", "use `lanes.max_queued` and `max_batch` of a handler"),
    ("fetch.max.wait.ms", "use `fetch.wait.max.ms`"),
    ("key.deserializer", "remove it: handlers receive bytes"),
    ("value.deserializer", "remove it: handlers receive bytes"),
    ("key.serializer", "remove it: handlers return bytes"),
    ("value.serializer", "remove it: handlers return bytes"),
    ("buffer.memory", "remove it: in-flight outputs are limited per topic"),
    ("max.request.size", "use `message.max.bytes`"),
    ("max.block.ms", "remove it: producing waits without a limit"),
    ("default.api.timeout.ms", "use `socket.timeout.ms`"),
    ("receive.buffer.bytes", "use `socket.receive.buffer.bytes`"),
    ("send.buffer.bytes", "use `socket.send.buffer.bytes`"),
    ("partitioner.class", "remove it: outputs go to the partition that Java clients choose for their key"),
    ("partitioner.ignore.keys", "remove it: outputs without a key are spread over the partitions"),
    ("interceptor.classes", "remove it: librdkafka has no such classes"),
    ("metric.reporters", "remove it: librdkafka has no such classes"),
    ("security.providers", "remove it: librdkafka uses OpenSSL"),
    ("ssl.truststore.location", "use `ssl.ca.location`, a PEM file"),
    ("ssl.truststore.password", "remove it; `ssl.ca.location` names a PEM file, which has no password"),
    ("ssl.truststore.type", "remove it; `ssl.ca.location` names a PEM file"),
    ("ssl.truststore.certificates", "use `ssl.ca.pem`"),
    ("ssl.keystore.type", "remove it; `ssl.keystore.location` names a PKCS#12 file"),
    ("ssl.keystore.key", "use `ssl.key.pem`"),
    ("ssl.keystore.certificate.chain", "use `ssl.certificate.pem`"),
    ("ssl.enabled.protocols", "remove it: OpenSSL negotiates the version"),
    ("ssl.protocol", "remove it: OpenSSL negotiates the version"),
    ("schema.registry.url", "remove it: handlers receive bytes"),
    ("exclude.internal.topics", "remove it: topics are named one by one"),
    ("socket.connection.setup.timeout.max.ms", "use `socket.connection.setup.timeout.ms`"),
    ("sasl.jaas.config", "use `sasl.username` and `sasl.password`"),
];

/// OAUTHBEARER properties that need no HTTP.
const OAUTHBEARER: [&str; 2] = ["sasl.oauthbearer.config", "sasl.oauthbearer.method"];

/// Returns whether a property is for OIDC, which fetches tokens over HTTP. The client of this build can't do that.
pub(super) fn is_oidc(name: &str, value: &str) -> bool {
    match name {
        "sasl.oauthbearer.method" => value.trim().eq_ignore_ascii_case("oidc"),
        "https.ca.location" | "https.ca.pem" => true,
        name => name.starts_with("sasl.oauthbearer.") && !OAUTHBEARER.contains(&name),
    }
}

/// Returns the canonical name of a property that is reserved or has two names; `None` for all others.
pub(super) fn canonical_name(name: &str) -> Option<&'static str> {
    let alias = ALIASES.iter().find(|(alias, canonical)| name == *alias || name == *canonical);
    let reserved =
        || RESERVED.iter().find(|(canonical, _)| name == *canonical).map(|(canonical, _)| *canonical);
    alias.map(|(_, canonical)| *canonical).or_else(reserved)
}

/// Returns the reason why users can't set a property; `None`: they can.
pub(super) fn reserved_reason(name: &str) -> Option<&'static str> {
    let canonical = canonical_name(name)?;
    RESERVED.iter().find(|(reserved, _)| *reserved == canonical).map(|(_, reason)| *reason)
}

/// Returns the alternative to a property that only Kafka's Java client has.
pub(super) fn java_remedy(name: &str) -> Option<&'static str> {
    JAVA_ONLY.iter().find(|(java, _)| *java == name).map(|(_, remedy)| *remedy)
}
