//! Behaviour, through real sockets, stores and processes. One file per promise or capability.

mod config;
mod demo;
mod docs;
mod e2e;
mod floors;
mod gateway;
mod life;
mod lookup;
mod store;
mod support;
