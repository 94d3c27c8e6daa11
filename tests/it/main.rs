//! Behaviour, through real sockets, stores and processes. One file per promise or capability.

mod budget;
mod config;
mod demo;
mod docs;
mod e2e;
mod edge;
mod failures;
mod flights;
mod freshness;
mod gateway;
mod house;
mod life;
mod logs;
mod lookup;
mod metrics;
mod model;
mod native;
mod negative;
mod pictures;
mod restart;
mod store;
mod support;
mod without_store;
