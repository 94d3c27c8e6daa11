//! Names: who is looked up, by whom, and in which form.
//!
//! One parser ([`Jid::parse`]) reads every spelling that the gateway reads, and everything behind it holds the canonical form
//! only: two spellings of one person can never become two cache entries, two lookups or two histories.
//!
//! Nothing here allocates except a device name of more than 24 bytes: the names are made anew on every request.

use std::fmt;

use arrayvec::ArrayString;
use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Longest user part that any server is known to give out, with room to spare (bytes).
pub(crate) const USER_MAX: usize = 40;

/// Longest person's number without a server, by the gateway's rule; anything longer is a group.
const PERSON_MAX: usize = 15;

/// The kinds of WhatsApp address, named by the part behind the `@`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Server {
    /// `s.whatsapp.net`: a person, by phone number. `c.us`, the older name, is read as this.
    Person,
    /// `g.us`: a group or a community.
    Group,
    /// `lid`: a person, by hidden id.
    Lid,
    /// `newsletter`: a channel.
    Newsletter,
    /// `bot`.
    Bot,
    /// `broadcast`: a broadcast list, or `status`.
    Broadcast,
}

impl Server {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Person => "s.whatsapp.net",
            Self::Group => "g.us",
            Self::Lid => "lid",
            Self::Newsletter => "newsletter",
            Self::Bot => "bot",
            Self::Broadcast => "broadcast",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        const ALL: [Server; 6] =
            [Server::Person, Server::Group, Server::Lid, Server::Newsletter, Server::Bot, Server::Broadcast];
        if name.eq_ignore_ascii_case("c.us") {
            return Some(Self::Person);
        }
        ALL.into_iter().find(|server| name.eq_ignore_ascii_case(server.as_str()))
    }

    /// Whether addresses of this kind name one account with several phones (`user.agent:device@server`).
    const fn has_devices(self) -> bool {
        matches!(self, Self::Person | Self::Lid | Self::Bot)
    }

    fn accepts(self, user: &str) -> bool {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match self {
            Self::Group => user.split_once('-').map_or_else(|| digits(user), |(a, b)| digits(a) && digits(b)),
            Self::Broadcast => user == "status" || digits(user),
            Self::Person | Self::Lid | Self::Newsletter | Self::Bot => digits(user),
        }
    }
}

/// A canonical WhatsApp address: `6281234567890@s.whatsapp.net`, `120363025246125486@g.us`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Jid {
    user: ArrayString<USER_MAX>,
    server: Server,
}

/// Why a text is not an address. The message is what follows the parameter's name, in the gateway's manner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JidError {
    /// Nothing was given. The gateway's own words.
    #[error("cannot be blank.")]
    Blank,
    /// Nobody can have a name of that length.
    #[error("is longer than any WhatsApp address.")]
    TooLong,
    /// The part behind the `@`.
    #[error("the part behind @ must be s.whatsapp.net, g.us, lid, newsletter, bot, broadcast or c.us.")]
    Server,
    /// The part before the `@`.
    #[error("must be digits, with an optional leading + and an optional @server.")]
    User,
}

impl Jid {
    /// Reads an address as the gateway reads its parameter `phone`.
    ///
    /// * Without `@`: up to 15 characters is a person, more is a group.
    /// * One leading `+` is dropped, also when it arrives as a space because a client did not percent-encode it.
    /// * `user:device@server` and `user.agent:device@server` name one of a person's phones; the avatar is the person's.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, JidError> {
        let text = match text.as_bytes() {
            [b'+' | b' ', ..] => &text[1..],
            _ => text,
        };
        if text.bytes().all(|byte| byte == b' ') {
            return Err(JidError::Blank);
        }
        // Nearly every address is digits alone: it names neither a server nor a phone, and every server knows such users.
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let named = if plain { None } else { split_at_byte(text, b'@') };
        let (user, server) = match named {
            Some((user, server)) => (user, Server::parse(server).ok_or(JidError::Server)?),
            None if text.len() <= PERSON_MAX => (text, Server::Person),
            None => (text, Server::Group),
        };
        let user = if !plain && server.has_devices() { strip_device(user)? } else { user };
        if user.len() > USER_MAX {
            return Err(JidError::TooLong);
        }
        if !plain && !server.accepts(user) {
            return Err(JidError::User);
        }
        Ok(Self { user: ArrayString::from(user).map_err(|_| JidError::TooLong)?, server })
    }

    /// Which kind of address this is.
    #[must_use]
    pub const fn server(&self) -> Server {
        self.server
    }

    /// The part before the `@`.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }
}

/// The parts before and behind the first `byte`.
pub(crate) fn split_at_byte(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = memchr::memchr(byte, text.as_bytes())?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// `user.agent:device` without what names the phone.
fn strip_device(user: &str) -> Result<&str, JidError> {
    let numeric = |part: &str| !part.is_empty() && part.len() <= 5 && part.bytes().all(|byte| byte.is_ascii_digit());
    let (rest, device) = user.split_once(':').map_or((user, None), |(rest, device)| (rest, Some(device)));
    let (account, agent) = rest.split_once('.').map_or((rest, None), |(account, agent)| (account, Some(agent)));
    if device.into_iter().chain(agent).all(numeric) { Ok(account) } else { Err(JidError::User) }
}

impl fmt::Display for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)?;
        f.write_str("@")?;
        f.write_str(self.server.as_str())
    }
}

/// A person's address is personal: what reaches a log is its shape and a short digest, never the address.
impl fmt::Debug for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", digest8(&self.user), self.server.as_str())
    }
}

impl Serialize for Jid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Jid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = CompactString::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A gateway device: the WhatsApp account that asks. Empty is the gateway's only one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Device(CompactString);

/// A device name of more than [`Device::MAX`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("device_id: must be at most {} bytes.", Device::MAX)]
pub struct DeviceTooLong;

impl Device {
    /// Longest device name (bytes, after URL-decoding).
    pub const MAX: usize = 256;

    /// # Errors
    /// When the name is longer than [`Device::MAX`].
    pub fn new(name: &str) -> Result<Self, DeviceTooLong> {
        if name.len() > Self::MAX { Err(DeviceTooLong) } else { Ok(Self(name.into())) }
    }

    /// The name as the gateway knows it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The only form in which a device appears in logs and metric labels: the first 8 hex digits of its SHA-256.
    #[must_use]
    pub fn label(&self) -> String {
        digest8(&self.0)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

/// Whose avatar it is, as one device sees it: visibility depends on who asks.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Subject {
    /// The account that asks.
    pub device: Device,
    /// The account that is asked about.
    pub jid: Jid,
}

/// Which of a subject's answers: the picture in full or its preview, of a group or of the community it stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Variant {
    /// `is_preview`: about 96 pixels instead of up to 640.
    pub preview: bool,
    /// `is_community`: always false unless the jid is a group's.
    pub community: bool,
}

impl Variant {
    /// A small number for stores: bit 0 is the preview, bit 1 the community.
    #[must_use]
    pub fn to_bits(self) -> u8 {
        u8::from(self.preview) | u8::from(self.community) << 1
    }

    /// The inverse of [`Variant::to_bits`]; other bits are ignored.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self { preview: bits & 1 != 0, community: bits & 2 != 0 }
    }
}

/// What one cache entry answers.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key {
    /// Whose avatar.
    pub subject: Subject,
    /// In which form.
    pub variant: Variant,
}

impl Key {
    /// The key of a request; `community` counts for groups only, because for people the gateway ignores it.
    #[must_use]
    pub fn new(device: Device, jid: Jid, preview: bool, community: bool) -> Self {
        let community = community && jid.server() == Server::Group;
        Self { subject: Subject { device, jid }, variant: Variant { preview, community } }
    }
}

fn digest8(text: &str) -> String {
    hex::encode(&Sha256::digest(text.as_bytes())[..4])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Jid::parse(text).map_or_else(|error| format!("{error:?}"), |jid| jid.to_string())
    }

    #[test]
    fn every_spelling_of_a_person_is_one_key() {
        for spelling in [
            "6281234567890",
            "+6281234567890",
            " 6281234567890",
            "6281234567890@s.whatsapp.net",
            "+6281234567890@s.whatsapp.net",
            "6281234567890:12@s.whatsapp.net",
            "6281234567890.0:12@s.whatsapp.net",
            "6281234567890.1@s.whatsapp.net",
            "6281234567890@c.us",
            "6281234567890@S.WhatsApp.Net",
        ] {
            assert_eq!(canonical(spelling), "6281234567890@s.whatsapp.net", "{spelling:?}");
        }
    }

    #[test]
    fn the_length_decides_between_person_and_group() {
        assert_eq!(canonical("123456789012345"), "123456789012345@s.whatsapp.net");
        assert_eq!(canonical("1234567890123456"), "1234567890123456@g.us");
        assert_eq!(canonical("6281234567890-1612345678"), "6281234567890-1612345678@g.us");
        assert_eq!(canonical("120363025246125486@g.us"), "120363025246125486@g.us");
    }

    #[test]
    fn other_servers_keep_their_name() {
        for text in ["123456789@lid", "120363144038483540@newsletter", "867051314767696@bot", "status@broadcast"] {
            assert_eq!(canonical(text), text);
        }
        assert_eq!(canonical("123456789:7@lid"), "123456789@lid");
    }

    #[test]
    fn what_is_not_an_address_says_why() {
        for blank in ["", "+", " ", "   "] {
            assert_eq!(canonical(blank), "Blank", "{blank:?}");
        }
        for text in ["1@example.org", "1@", "1@g.us.evil", "1@g.us@g.us"] {
            assert_eq!(canonical(text), "Server", "{text:?}");
        }
        for text in [
            "++1",
            "abc",
            "62 81",
            "@g.us",
            "1-2",
            "1:x@lid",
            "1:123456@lid",
            "1-2-3@g.us",
            "-1@g.us",
            "1.2.3@lid",
            "٣",
        ] {
            assert_eq!(canonical(text), "User", "{text:?}");
        }
        assert_eq!(canonical(&"9".repeat(41)), "TooLong");
        assert_eq!(canonical(&"9".repeat(8192)), "TooLong");
    }

    #[test]
    fn people_ignore_is_community() {
        let device = Device::default();
        let person = Jid::parse("1").unwrap();
        let group = Jid::parse("1@g.us").unwrap();
        assert_eq!(Key::new(device.clone(), person, false, true), Key::new(device.clone(), person, false, false));
        assert_ne!(Key::new(device.clone(), group, false, true), Key::new(device, group, false, false));
    }

    #[test]
    fn logs_show_no_address_and_no_device() {
        let device = Device::new("device-of-ada").unwrap();
        let key = Key::new(device, Jid::parse("6281234567890").unwrap(), false, false);
        let shown = format!("{key:?}");
        assert!(!shown.contains("6281234567890") && !shown.contains("ada"), "{shown}");
        assert!(Device::new(&"d".repeat(257)).is_err());
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_a_fixed_point(text in "[+ ]?[0-9]{1,20}(-[0-9]{1,10})?([.][0-9]{1,2})?(:[0-9]{1,3})?(@(s[.]whatsapp[.]net|g[.]us|lid|c[.]us|bot|newsletter|broadcast))?") {
            if let Ok(jid) = Jid::parse(&text) {
                prop_assert_eq!(Jid::parse(&jid.to_string()), Ok(jid));
            }
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = Jid::parse(&text);
        }
    }
}
