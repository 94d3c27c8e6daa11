//! Behaviour, through real sockets, stores and processes. One file per promise or capability.

mod config;
mod demo;
mod flights;
mod freshness;
mod gateway;
mod lookup;
mod negative;
mod pictures;
mod restart;
mod store;
mod support;
