//! The source against the embedded broker.
mod broker;
mod commits;
mod feed;
mod lookups;
mod member;
mod reading;
mod rebalance;
