//! Behaviour, through real sockets, stores and processes. One file per promise or capability.

mod demo;
