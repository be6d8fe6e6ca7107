//! The group of a handler as its brokers describe it, for an operator. It is not part of a run, so it may wait for
//! brokers.
mod errors;
mod positions;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use super::Error;
use super::delivery_suffix::split;
use super::spec::SourceSpec;
use crate::librdkafka::{
    AdminBroker, ClientEvent, Consumer, Deadline, END, ErrorCode, GroupDescription, GroupReader, Isolation,
    PartitionList, Properties, Queue, Requests, StartupRequests, Waiting, describe_topics,
};
use crate::status::{GroupMemberStatus, GroupStatus, TopicPartition};
use errors::GroupError;
use positions::{Positions, TopicKey};

/// The pause before a coordinator that is not ready receives the request again.
const PAUSE: Duration = Duration::from_millis(250);
/// Timeout of a request for the ends of logs: an unavailable leader must leave time for the others.
const LOG_ENDS_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum number of single-partition requests in flight.
const SINGLE_MAX: usize = 64;

/// Describes groups, with clients that join none.
pub struct GroupInspector {
    consumer: Consumer,
    broker: AdminBroker,
    deadline: Deadline,
}

impl GroupInspector {
    /// Connects to the brokers with the properties of this consumer. `contact` limits the wait for the first response,
    /// `deadline` that for all others.
    ///
    /// # Errors
    ///
    /// The client or the brokers reject the properties, or no broker responds in time:
    /// [`StartupError::Stopped`](crate::librdkafka::StartupError::Stopped).
    pub fn connect(
        spec: &SourceSpec,
        contact: Deadline,
        deadline: Deadline,
    ) -> Result<GroupInspector, Error> {
        let consumer = Consumer::new(&quiet(spec))?;
        let events = consumer.main_queue();
        let mut keep_waiting = |_: &Waiting| match contact.is_over() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let mut requests =
            StartupRequests::new(consumer.client(), &events, contact.remaining(), &mut keep_waiting);
        let broker = requests.broker()?;
        Ok(GroupInspector { consumer, broker, deadline })
    }

    /// Describes the group of a handler.
    ///
    /// # Errors
    ///
    /// The group does not exist, access to it is denied, or a request has no response in time.
    pub fn describe(&self, spec: &SourceSpec) -> Result<GroupStatus, GroupError> {
        let (description, commits) = self.group(spec)?;
        if !description.exists && commits.is_empty() {
            return Err(GroupError::Unknown { group: spec.group_id.clone() });
        }
        let mut positions = Positions::default();
        description.members.iter().for_each(|member| positions.add_member(member));
        commits.iter().for_each(|commit| positions.add_commit(&commit));
        let mut problems = self.add_topics(spec, &mut positions)?;
        self.add_log_ends(&mut positions);
        if description.members.is_empty() {
            problems.push(errors::no_members(&spec.group_id));
        }
        problems.extend(positions.problem());
        Ok(status(spec, description, positions, problems))
    }

    /// Requests the description and the committed offsets of a group, and retries while its coordinator is not ready.
    fn group(&self, spec: &SourceSpec) -> Result<(GroupDescription, PartitionList), GroupError> {
        let name = spec.group_name().ok_or_else(|| GroupError::Name(spec.group_id.clone()))?;
        loop {
            let reader = GroupReader::new(&quiet(spec))?;
            let (reader, described) = reader.describe(&name, self.deadline.remaining());
            let found = described.and_then(|description| {
                let reader = reader.ok_or(ErrorCode::TIMED_OUT)?;
                let (_, commits) = reader.read(&name, None, false, self.deadline.remaining());
                Ok((description, commits?))
            });
            match found {
                Ok(found) => return Ok(found),
                Err(code) if errors::is_temporary(code) && !self.deadline.is_over() => thread::sleep(PAUSE),
                Err(code) => return Err(GroupError::of_group(&spec.group_id, code)),
            }
        }
    }

    /// Adds all partitions of the handler's topics. Returns the problems of these topics.
    fn add_topics(&self, spec: &SourceSpec, positions: &mut Positions) -> Result<Vec<String>, GroupError> {
        let own = spec.topic_names().ok_or_else(|| GroupError::Name(spec.topics.join(", ")))?;
        let own: BTreeSet<CString> = own.into_iter().collect();
        let names: Vec<CString> = own.union(&positions.topics()).cloned().collect();
        let found = describe_topics(self.consumer.client(), &names, self.broker, self.deadline.remaining())
            .map_err(|code| GroupError::Topics { code })?;
        let mut problems = Vec::new();
        for topic in found {
            let is_own = own.contains(&topic.name);
            if !topic.error.is_none() {
                positions.set_topic_error(&topic.name, topic.error);
                problems.extend(is_own.then(|| errors::of_topic(&topic.name, topic.error)));
            } else if is_own {
                (0..topic.partitions).for_each(|number| positions.add((topic.name.clone(), number)));
            }
        }
        Ok(problems)
    }

    /// Requests the ends of all logs at once. If that fails as a whole, for example because a partition has no leader,
    /// each is requested alone.
    fn add_log_ends(&self, positions: &mut Positions) {
        let keys = positions.without_error();
        if keys.is_empty() {
            return;
        }
        let client = self.consumer.client();
        let mut requests = Requests::new(client, Queue::new(client));
        self.request_log_ends(&mut requests, &keys);
        let response = requests.wait_for_response(self.deadline.remaining());
        if response.is_some_and(|response| add_log_ends(&response, positions).is_ok()) {
            return;
        }
        for keys in keys.chunks(SINGLE_MAX) {
            let mut in_flight: BTreeMap<usize, &TopicKey> = keys
                .iter()
                .map(|key| (self.request_log_ends(&mut requests, std::slice::from_ref(key)), key))
                .collect();
            while !in_flight.is_empty()
                && let Some(response) = requests.wait_for_response(self.deadline.remaining())
            {
                if let Some(key) = in_flight.remove(&response.request())
                    && let Err(code) = add_log_ends(&response, positions)
                {
                    positions.set_error(key, code);
                }
            }
            in_flight.values().for_each(|key| positions.set_error(key, ErrorCode::TIMED_OUT));
        }
    }

    fn request_log_ends(&self, requests: &mut Requests, keys: &[TopicKey]) -> usize {
        let mut list = PartitionList::with_capacity(keys.len());
        keys.iter().for_each(|(topic, number)| list.push(topic, *number, END));
        requests.log_offsets(list, Isolation::Uncommitted, LOG_ENDS_TIMEOUT.min(self.deadline.remaining()))
    }
}

/// Returns the properties of a consumer that logs nothing: its errors are results of a command.
fn quiet(spec: &SourceSpec) -> Properties {
    let mut properties = spec.properties();
    properties.set("log_level", 0);
    properties
}

fn add_log_ends(response: &ClientEvent, positions: &mut Positions) -> Result<(), ErrorCode> {
    for entry in response.log_offsets()? {
        let key = (entry.topic.to_owned(), entry.partition);
        match entry.error.into_result() {
            Ok(()) => positions.set_log_end(&key, entry.offset),
            Err(code) => positions.set_error(&key, code),
        }
    }
    Ok(())
}

fn status(
    spec: &SourceSpec,
    description: GroupDescription,
    positions: Positions,
    problems: Vec<String>,
) -> GroupStatus {
    let mut members: Vec<GroupMemberStatus> = description
        .members
        .into_iter()
        .map(|member| {
            let partition = |(topic, partition): (CString, i32)| TopicPartition {
                topic: topic.to_string_lossy().into_owned(),
                partition,
            };
            let mut partitions: Vec<_> = member.partitions.into_iter().map(partition).collect();
            partitions.sort_unstable();
            let (client_id, delivery) = split(&member.client_id);
            GroupMemberStatus {
                client_id: client_id.to_owned(),
                delivery,
                host: member.host,
                member_id: member.member_id,
                instance_id: member.instance_id,
                partitions,
            }
        })
        .collect();
    members.sort_by(|a, b| (&a.client_id, &a.member_id).cmp(&(&b.client_id, &b.member_id)));
    GroupStatus {
        handler: spec.handler.clone(),
        group: spec.group_id.clone(),
        state: description.state,
        protocol: description.protocol,
        assignor: Some(description.assignor).filter(|assignor| !assignor.is_empty()),
        coordinator: description.coordinator,
        members,
        partitions: positions.into_status(),
        problems,
    }
}
