//! Why a group can't be described, or not completely, with the remedies.
use std::ffi::CStr;

use crate::librdkafka::{ClientError, ErrorCode};

/// Why a group can't be described.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The client rejects its properties.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The name of the group or of a topic contains a NUL byte.
    #[error("`{}` is not the name of a group or topic", .0.escape_debug())]
    Name(String),
    /// The group does not exist.
    #[error(
        "group `{group}` does not exist: it has neither members nor committed offsets; start a process with `keylane \
         run`, or check `group_id` and `kafka.bootstrap_servers`"
    )]
    Unknown {
        /// The group.
        group: String,
    },
    /// Access to the group is denied.
    #[error("access to group `{group}` is denied: {code}; grant this user READ on it")]
    Denied {
        /// The group.
        group: String,
        /// The broker's error.
        code: ErrorCode,
    },
    /// The group is used by clients that are not consumers.
    #[error("`{group}` is not a consumer group; check `group_id`")]
    NotConsumers {
        /// The group.
        group: String,
    },
    /// The coordinator did not describe the group.
    #[error("group `{group}` can't be described: {code}; check that the brokers that store its offsets run")]
    Coordinator {
        /// The group.
        group: String,
        /// The error.
        code: ErrorCode,
    },
    /// The topics could not be described.
    #[error("the topics can't be described: {code}; check that the brokers run")]
    Topics {
        /// The error.
        code: ErrorCode,
    },
}

impl GroupError {
    pub(super) fn of_group(group: &str, code: ErrorCode) -> GroupError {
        let group = group.to_owned();
        match code {
            ErrorCode::GROUP_AUTHORIZATION_FAILED => GroupError::Denied { group, code },
            ErrorCode::INVALID_ARG => GroupError::NotConsumers { group },
            code => GroupError::Coordinator { group, code },
        }
    }
}

/// Returns whether the error only means that the coordinator is not ready yet.
pub(super) fn is_temporary(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
            | ErrorCode::COORDINATOR_NOT_AVAILABLE
            | ErrorCode::NOT_COORDINATOR
    )
}

/// Describes the error of a topic.
pub(super) fn of_topic(topic: &CStr, code: ErrorCode) -> String {
    let remedy = match code {
        ErrorCode::UNKNOWN_TOPIC_OR_PART | ErrorCode::UNKNOWN_TOPIC => "create it, or check `topics`",
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => "grant this user READ and DESCRIBE on it",
        _ => "check that its brokers run",
    };
    format!("topic `{}` can't be described: {code}; {remedy}", topic.to_string_lossy())
}

/// Describes a group without members.
pub(super) fn no_members(group: &str) -> String {
    format!("group `{group}` has no members, so nothing is processed; start a process with `keylane run`")
}

/// Describes the partitions with an error, of which this one is the first.
pub(super) fn of_partitions(topic: &CStr, number: i32, code: ErrorCode, count: usize) -> String {
    let others = match count {
        1 => String::new(),
        count => format!(", and {} more", count - 1),
    };
    let remedy = match code {
        ErrorCode::UNKNOWN_TOPIC_OR_PART | ErrorCode::UNKNOWN_TOPIC => {
            "its topic does not exist any more; the commit expires with `offsets.retention.minutes`"
        }
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => "grant this user READ and DESCRIBE on its topic",
        _ => "check that its leader runs",
    };
    format!("partition {}/{number} can't be described: {code}{others}; {remedy}", topic.to_string_lossy())
}
