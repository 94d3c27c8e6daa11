//! What every test stands on: the proxy over real sockets in this process ([`app`]) or as a process of its own ([`process`]),
//! in front of the simulated gateway, asked by a plain client ([`client`]).

pub(crate) mod app;
pub(crate) mod authority;
pub(crate) mod background;
pub(crate) mod caller;
pub(crate) mod client;
pub(crate) mod eventually;
pub(crate) mod failing;
pub(crate) mod hand;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod receiver;
pub(crate) mod redis;
pub(crate) mod relay;
pub(crate) mod replica;
pub(crate) mod subscriber;
pub(crate) mod wire;
