//! Ports for programs that cannot say which free one they took, or that come back to the one they had.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Ports that Linux gives to nobody by itself: whoever asks it for a free one does not come between.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// One of them, which somebody may have.
pub(crate) fn any() -> u16 {
    fastrand::u16(PORTS)
}

/// Takes one of them.
pub(crate) fn take() -> TcpListener {
    let mut tries = std::iter::repeat_with(|| TcpListener::bind((Ipv4Addr::LOCALHOST, any())));
    tries.find_map(Result::ok).expect("there are always more")
}

/// An address of this machine on which nobody listens.
pub(crate) fn free() -> SocketAddr {
    take().local_addr().expect("a listener has an address")
}
