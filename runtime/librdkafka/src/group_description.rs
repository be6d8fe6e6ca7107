//! Descriptions of consumer groups: their members, and the partitions of each.
use std::ffi::{CString, c_int};

use super::code::{self, ErrorCode};
use super::list::PartitionList;
use super::sys;

/// `RD_KAFKA_CONSUMER_GROUP_STATE_DEAD`.
const DEAD: c_int = 4;

/// A group, as its coordinator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Whether the group exists: it has members or committed offsets.
    pub exists: bool,
    /// Its state by Kafka's name, such as `Stable` or `PreparingRebalance`.
    pub state: String,
    /// Its protocol by Kafka's name: `Classic` or `Consumer`.
    pub protocol: String,
    /// The assignor that its members agreed on; empty without members.
    pub assignor: String,
    /// The address of its coordinator, `host:port`.
    pub coordinator: Option<String>,
    /// Its members, in the order of the response.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its `client.id`.
    pub client_id: String,
    /// The address from which it is connected.
    pub host: String,
    /// The id that the coordinator uses for it.
    pub member_id: String,
    /// Its `group.instance.id`, if it is a static member.
    pub instance_id: Option<String>,
    /// Its partitions; empty while the group rebalances.
    pub partitions: Vec<(CString, i32)>,
}

/// # Safety
/// The description is live.
pub(super) unsafe fn group_description(
    group: *const sys::DescribedGroup,
) -> Result<GroupDescription, ErrorCode> {
    // SAFETY: the caller guarantees that it is live; its error, texts, coordinator and members belong to it, and are
    // copied. The names of states and protocols are static, and the functions accept the numbers of the description.
    unsafe {
        let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
        if !error.is_null() {
            ErrorCode(sys::rd_kafka_error_code(error)).into_result()?;
        }
        let state = sys::rd_kafka_ConsumerGroupDescription_state(group);
        let protocol = sys::rd_kafka_ConsumerGroupDescription_type(group);
        let count = sys::rd_kafka_ConsumerGroupDescription_member_count(group);
        let members = (0..count).map(|at| sys::rd_kafka_ConsumerGroupDescription_member(group, at));
        Ok(GroupDescription {
            exists: state != DEAD,
            state: code::text(sys::rd_kafka_consumer_group_state_name(state)),
            protocol: code::text(sys::rd_kafka_consumer_group_type_name(protocol)),
            assignor: code::text(sys::rd_kafka_ConsumerGroupDescription_partition_assignor(group)),
            coordinator: address(sys::rd_kafka_ConsumerGroupDescription_coordinator(group)),
            members: members.filter(|member| !member.is_null()).map(|member| self::member(member)).collect(),
        })
    }
}

/// # Safety
/// The member is live.
unsafe fn member(member: *const sys::DescribedMember) -> GroupMember {
    // SAFETY: the caller guarantees that it is live; its texts and its assignment, with the list, belong to it and are
    // copied. Only the instance id and the list may be null.
    unsafe {
        let assignment = sys::rd_kafka_MemberDescription_assignment(member);
        let list = PartitionList::copy_of(sys::rd_kafka_MemberAssignment_partitions(assignment));
        let instance_id = code::text(sys::rd_kafka_MemberDescription_group_instance_id(member));
        let host = code::text(sys::rd_kafka_MemberDescription_host(member));
        GroupMember {
            client_id: code::text(sys::rd_kafka_MemberDescription_client_id(member)),
            // Brokers format the address as Java does: with the empty name of the host before it.
            host: host.strip_prefix('/').unwrap_or(&host).to_owned(),
            member_id: code::text(sys::rd_kafka_MemberDescription_consumer_id(member)),
            instance_id: (!instance_id.is_empty()).then_some(instance_id),
            partitions: list.iter().map(|entry| (entry.topic.to_owned(), entry.partition)).collect(),
        }
    }
}

/// # Safety
/// The node is null or live.
unsafe fn address(node: *const sys::Node) -> Option<String> {
    if node.is_null() {
        return None;
    }
    // SAFETY: not null, so live; the name belongs to it and is copied.
    unsafe {
        Some(format!("{}:{}", code::text(sys::rd_kafka_Node_host(node)), sys::rd_kafka_Node_port(node)))
    }
}
