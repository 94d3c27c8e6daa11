//! Behaviour, through real sockets, stores and processes. One file per promise or capability.

mod config;
mod demo;
mod edge;
mod failures;
mod gateway;
mod logs;
mod lookup;
mod native;
mod store;
mod support;
