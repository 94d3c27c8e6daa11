//! Which addresses are nobody's but one's own: the blocks into which a stranger may not send the proxy.
//!
//! The rules:
//! * What is not plainly part of the public internet is refused. Of IPv6 that is everything outside `2000::/3`, so that a
//!   block nobody has heard of yet is refused too; of IPv4, where hardly anything is left unassigned, the blocks that IANA
//!   lists as special.
//! * An IPv6 address that leads to an IPv4 one is judged by that one: a translator or a tunnel may stand in between.
//! * Some platforms answer every machine on an address of their own, with credentials among the answers. One of these lies in
//!   a public block, and is refused by name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of address was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// This machine, by any of its loopback addresses.
    Loopback,
    /// A private network, a carrier's, or IPv6's unique local addresses.
    Private,
    /// The link.
    LinkLocal,
    /// Where a cloud platform tells its machines about themselves.
    Metadata,
    /// A group of machines.
    Multicast,
    /// All machines of the link.
    Broadcast,
    /// None.
    Unspecified,
    /// Documentation, benchmarks, protocols, and what nobody was given.
    Reserved,
    /// This machine, by an address that others may reach it at.
    Own,
}

impl Class {
    /// The word for logs and for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Unspecified => "unspecified",
            Self::Reserved => "reserved",
            Self::Own => "own",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

/// The first block that holds an address decides.
const V4: [(Ipv4Addr, u32, Class); 20] = [
    (v4(169, 254, 169, 254), 32, Class::Metadata),
    (v4(168, 63, 129, 16), 32, Class::Metadata),
    (v4(100, 100, 100, 200), 32, Class::Metadata),
    (v4(0, 0, 0, 0), 32, Class::Unspecified),
    (v4(255, 255, 255, 255), 32, Class::Broadcast),
    (v4(0, 0, 0, 0), 8, Class::Reserved),
    (v4(10, 0, 0, 0), 8, Class::Private),
    (v4(100, 64, 0, 0), 10, Class::Private),
    (v4(127, 0, 0, 0), 8, Class::Loopback),
    (v4(169, 254, 0, 0), 16, Class::LinkLocal),
    (v4(172, 16, 0, 0), 12, Class::Private),
    (v4(192, 0, 0, 0), 24, Class::Reserved),
    (v4(192, 0, 2, 0), 24, Class::Reserved),
    (v4(192, 88, 99, 0), 24, Class::Reserved),
    (v4(192, 168, 0, 0), 16, Class::Private),
    (v4(198, 18, 0, 0), 15, Class::Reserved),
    (v4(198, 51, 100, 0), 24, Class::Reserved),
    (v4(203, 0, 113, 0), 24, Class::Reserved),
    (v4(224, 0, 0, 0), 4, Class::Multicast),
    (v4(240, 0, 0, 0), 4, Class::Reserved),
];

const fn v6(a: u16, b: u16, c: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)
}

/// The first block that holds an address decides; what is in none and outside `2000::/3` is reserved.
const V6: [(Ipv6Addr, u32, Class); 12] = [
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128, Class::Metadata),
    (Ipv6Addr::UNSPECIFIED, 128, Class::Unspecified),
    (Ipv6Addr::LOCALHOST, 128, Class::Loopback),
    // A translator of the local network's own; where in it the IPv4 address stands is the network's choice.
    (v6(0x64, 0xff9b, 1), 48, Class::Private),
    (v6(0xfc00, 0, 0), 7, Class::Private),
    (v6(0xfe80, 0, 0), 10, Class::LinkLocal),
    (v6(0xfec0, 0, 0), 10, Class::Private),
    (v6(0xff00, 0, 0), 8, Class::Multicast),
    // Protocols. Among them is Teredo, a tunnel to two IPv4 addresses, whose last servers are gone.
    (v6(0x2001, 0, 0), 23, Class::Reserved),
    (v6(0x2001, 0xdb8, 0), 32, Class::Reserved),
    (v6(0x3fff, 0, 0), 20, Class::Reserved),
    // A prefix whose one public use is a name that points at the machine which asks.
    (v6(0x2620, 0x4f, 0x8000), 48, Class::Reserved),
];

const GLOBAL: (Ipv6Addr, u32) = (v6(0x2000, 0, 0), 3);
const MAPPED: (Ipv6Addr, u32) = (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
const NAT64: (Ipv6Addr, u32) = (v6(0x64, 0xff9b, 0), 96);
const SIX_TO_FOUR: (Ipv6Addr, u32) = (v6(0x2002, 0, 0), 16);

fn holds_v4((block, length): (Ipv4Addr, u32), address: Ipv4Addr) -> bool {
    (block.to_bits() ^ address.to_bits()) >> (32 - length) == 0
}

fn holds_v6((block, length): (Ipv6Addr, u32), address: Ipv6Addr) -> bool {
    (block.to_bits() ^ address.to_bits()) >> (128 - length) == 0
}

/// Why a stranger may not send the proxy there; `None` for the public internet.
#[must_use]
pub fn refused(address: IpAddr) -> Option<Class> {
    match address {
        IpAddr::V4(address) => refused_v4(address),
        IpAddr::V6(address) => refused_v6(address),
    }
}

fn refused_v4(address: Ipv4Addr) -> Option<Class> {
    V4.iter().find(|(block, length, _)| holds_v4((*block, *length), address)).map(|(_, _, class)| *class)
}

fn refused_v6(address: Ipv6Addr) -> Option<Class> {
    if holds_v6(MAPPED, address) || holds_v6(NAT64, address) {
        return refused_v4(last(address));
    }
    let listed = V6.iter().find(|(block, length, _)| holds_v6((*block, *length), address));
    listed
        .map(|(_, _, class)| *class)
        .or_else(|| (!holds_v6(GLOBAL, address)).then_some(Class::Reserved))
        .or_else(|| carried(address.into()).and_then(refused_v4))
}

/// The IPv4 address that an IPv6 one leads to.
pub(super) fn carried(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    if holds_v6(SIX_TO_FOUR, address) {
        let [_, _, a, b, c, d, ..] = address.octets();
        return Some(v4(a, b, c, d));
    }
    (holds_v6(MAPPED, address) || holds_v6(NAT64, address) || is_isatap(address)).then(|| last(address))
}

fn last(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    v4(a, b, c, d)
}

/// Whether the address's lower half is that of a tunnel inside some network (RFC 5214), whatever its upper half.
fn is_isatap(address: Ipv6Addr) -> bool {
    let [.., high, low, _, _] = address.segments();
    high & !0x0200 == 0 && low == 0x5efe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What must be refused, written down a second time, as people write it.
    const REFUSED_V4: &str = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 \
        192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 \
        255.255.255.255/32 168.63.129.16/32";
    const REFUSED_V6: &str = "::/128 ::1/128 ::/96 64:ff9b:1::/48 100::/64 2001::/32 2001:2::/48 2001:10::/28 2001:20::/28 \
        2001:db8::/32 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8 4000::/3 8000::/1 ::ffff:0:0:0/96";
    const EMBEDDINGS: [fn(Ipv4Addr) -> Ipv6Addr; 7] = [
        |inner| inner.to_ipv6_mapped(),
        |inner| Ipv6Addr::from_bits(u128::from(inner.to_bits())),
        |inner| Ipv6Addr::from_bits((0x64_ff9b << 96) | u128::from(inner.to_bits())),
        |inner| Ipv6Addr::from_bits((0x2002 << 112) | u128::from(inner.to_bits()) << 80 | 7),
        |inner| Ipv6Addr::from_bits((0x2001 << 112) | u128::from(inner.to_bits()) << 64 | 7),
        |inner| Ipv6Addr::from_bits((0x2001 << 112) | 0x0808_0808 << 64 | u128::from(!inner.to_bits())),
        |inner| Ipv6Addr::from_bits((0x2a00_1450 << 96) | 0x0200_5efe << 32 | u128::from(inner.to_bits())),
    ];
    const PUBLIC: [&str; 13] = [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.255",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
    ];

    fn blocks<A: std::str::FromStr<Err: fmt::Debug>>(text: &str) -> Vec<(A, u32)> {
        let block = |word: &str| {
            let (address, length) = word.split_once('/').unwrap();
            (address.parse().unwrap(), length.parse().unwrap())
        };
        text.split_whitespace().map(block).collect()
    }

    prop_compose! {
        fn in_a_refused_v4_block()(
            (block, length) in proptest::sample::select(blocks::<Ipv4Addr>(REFUSED_V4)), host: u32
        ) -> Ipv4Addr {
            Ipv4Addr::from_bits(block.to_bits() | host.checked_shr(length).unwrap_or(0))
        }
    }

    prop_compose! {
        fn in_a_refused_v6_block()(
            (block, length) in proptest::sample::select(blocks::<Ipv6Addr>(REFUSED_V6)), host: u128
        ) -> Ipv6Addr {
            Ipv6Addr::from_bits(block.to_bits() | host.checked_shr(length).unwrap_or(0))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn no_address_of_a_refused_block_passes_whatever_it_is_wrapped_in(address in in_a_refused_v4_block()) {
            prop_assert!(refused(address.into()).is_some(), "{address}");
            for embed in EMBEDDINGS {
                let wrapped = embed(address);
                prop_assert!(refused(wrapped.into()).is_some(), "{address} as {wrapped}");
            }
        }

        #[test]
        fn no_address_of_a_refused_v6_block_passes(address in in_a_refused_v6_block()) {
            prop_assert!(refused(address.into()).is_some(), "{address}");
        }

        #[test]
        fn what_the_standard_library_knows_as_special_is_refused(bits: u128, short: u32) {
            for (v4, v6) in [
                (Ipv4Addr::from_bits(short), Ipv6Addr::from_bits(bits)),
                (Ipv4Addr::from_bits(short >> 8 | 127 << 24), Ipv6Addr::from_bits(bits >> 12 | 0xfe8 << 116)),
            ] {
                let special = v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_multicast()
                    || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
                prop_assert!(!special || refused(v4.into()).is_some(), "{v4}");
                let special = v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local()
                    || v6.is_multicast() || v6.is_unspecified();
                prop_assert!(!special || refused(v6.into()).is_some(), "{v6}");
            }
        }
    }

    #[test]
    fn the_public_internet_passes_to_the_edges_of_the_refused_blocks() {
        for text in PUBLIC {
            let address: Ipv4Addr = text.parse().unwrap();
            assert_eq!(refused(address.into()), None, "{address}");
            // Translated, as on a network without IPv4, or through a tunnel that still may be there.
            for embed in [EMBEDDINGS[0], EMBEDDINGS[2], EMBEDDINGS[3], EMBEDDINGS[6]] {
                assert_eq!(refused(embed(address).into()), None, "{address} as {}", embed(address));
            }
        }
        for text in ["2606:4700::1111", "2a00:1450:4001::200e", "2001:200::1", "2001:4860:4860::8888", "2400:cb00::1"] {
            assert_eq!(refused(text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn a_refusal_says_what_kind_of_address_it_was() {
        for (text, class) in [
            ("127.0.0.1", Class::Loopback),
            ("::1", Class::Loopback),
            ("::ffff:127.0.0.1", Class::Loopback),
            ("64:ff9b::7f00:1", Class::Loopback),
            ("2002:7f00:1::", Class::Loopback),
            ("10.1.2.3", Class::Private),
            ("100.64.0.1", Class::Private),
            ("fd12:3456::1", Class::Private),
            ("169.254.1.1", Class::LinkLocal),
            ("fe80::1", Class::LinkLocal),
            ("169.254.169.254", Class::Metadata),
            ("::ffff:169.254.169.254", Class::Metadata),
            ("fd00:ec2::254", Class::Metadata),
            ("224.0.0.1", Class::Multicast),
            ("ff02::1", Class::Multicast),
            ("255.255.255.255", Class::Broadcast),
            ("0.0.0.0", Class::Unspecified),
            ("::", Class::Unspecified),
            ("240.0.0.1", Class::Reserved),
            ("203.0.113.9", Class::Reserved),
            ("2001:db8::1", Class::Reserved),
        ] {
            assert_eq!(refused(text.parse().unwrap()), Some(class), "{text}");
        }
    }
}
