//! The source against the embedded broker.
mod broker;
mod commits;
mod feed;
mod look_ups;
mod member;
mod reading;
mod rebalance;
