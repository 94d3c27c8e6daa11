//! Reads whose avatar a client asks for, in which form, and as which device. Everything odd is refused with its name.

use std::borrow::Cow;

use super::facts::Facts;
use crate::jid::{Device, Jid, Key, split_at_byte};

/// What is wrong with a request: a sentence that begins with the parameter's name, as the gateway's own do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid(pub(super) Cow<'static, str>);

impl Invalid {
    pub(super) fn of(name: &str, what: &str) -> Self {
        Self(Cow::Owned(format!("{name}: {what}")))
    }
}

/// The parameters of a query string, decoded; each that is known at most once.
#[derive(Debug, Default)]
pub(super) struct Parameters<'a> {
    pub(super) jid: Option<Cow<'a, str>>,
    pub(super) preview: Option<Cow<'a, str>>,
    pub(super) community: Option<Cow<'a, str>>,
    pub(super) device: Option<Cow<'a, str>>,
}

/// The names that a route gives to its parameters.
#[derive(Clone, Copy)]
pub(super) struct Names {
    jid: &'static str,
    /// whether `jid` stands in the path, and a parameter of that name means nothing
    in_path: bool,
    preview: &'static str,
    community: &'static str,
}

/// As the gateway names them.
pub(super) const GATEWAY_NAMES: Names =
    Names { jid: "phone", in_path: false, preview: "is_preview", community: "is_community" };

/// As the native API names them; whose avatar it is stands in the path.
pub(super) const NATIVE_NAMES: Names = Names { jid: "jid", in_path: true, preview: "preview", community: "community" };

impl<'a> Parameters<'a> {
    /// Reads `application/x-www-form-urlencoded`. Parameters that are not known are passed over, as the gateway does.
    pub(super) fn read(query: &'a str, names: Names) -> Result<Self, Invalid> {
        let mut read = Self::default();
        // Nearly every query is plain, which one look tells for all of its parts; without a branch it takes many bytes at once.
        let is_code = |byte| byte == b'%' || byte == b'+';
        let encoded = query.bytes().fold(false, |found, byte| found | is_code(byte));
        let decode = |text| if encoded { decode(text, true) } else { Some(Cow::Borrowed(text)) };
        let mut rest = Some(query);
        while let Some(pairs) = rest {
            let (pair, more) = split_at_byte(pairs, b'&').map_or((pairs, None), |(pair, more)| (pair, Some(more)));
            rest = more;
            // A name is so short that a faster search would take longer to begin.
            let name_end = pair.bytes().position(|byte| byte == b'=');
            let (name, value) = name_end.map_or((pair, ""), |end| (&pair[..end], &pair[end + 1..]));
            let name = decode(name).ok_or_else(|| Invalid("the query is not valid percent-encoding.".into()))?;
            let place = match &*name {
                "device_id" => &mut read.device,
                name if name == names.jid && !names.in_path => &mut read.jid,
                name if name == names.preview => &mut read.preview,
                name if name == names.community => &mut read.community,
                _ => continue,
            };
            let value = decode(value).ok_or_else(|| Invalid::of(&name, "is not valid percent-encoding."))?;
            if place.replace(value).is_some() {
                return Err(Invalid::of(&name, "must be given once."));
            }
        }
        Ok(read)
    }

    /// The key that is asked for. `jid` is the path's, where the route has it there.
    pub(super) fn key(
        &self,
        names: Names,
        jid: Option<&str>,
        facts: &Facts<'_>,
        default: &Device,
    ) -> Result<Key, Invalid> {
        let text = jid.or(self.jid.as_deref()).unwrap_or_default();
        let jid = Jid::parse(text).map_err(|error| Invalid::of(names.jid, &error.to_string()))?;
        let preview = boolean(names.preview, self.preview.as_deref())?;
        let community = boolean(names.community, self.community.as_deref())?;
        let device = named_device(facts, self.device.as_deref())?.unwrap_or_default();
        let device = if device.as_str().is_empty() { default.clone() } else { device };
        Ok(Key::new(device, jid, preview, community))
    }
}

/// The device that a request names, by header or else by parameter; `None`: it names none, not even the empty one.
pub(super) fn named_device(facts: &Facts<'_>, parameter: Option<&str>) -> Result<Option<Device>, Invalid> {
    if facts.device_repeated {
        return Err(Invalid::of("X-Device-Id", "must be given once."));
    }
    let header = facts.device.map(http::HeaderValue::as_bytes).unwrap_or_default();
    if header.is_empty() && parameter.is_none() {
        return Ok(None);
    }
    // Nearly every name is plain: nothing to decode, to trim or to object to.
    if let Ok(name) = std::str::from_utf8(header)
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    {
        return Device::new(name).map(Some).map_err(|error| Invalid(Cow::Owned(error.to_string())));
    }
    let header = std::str::from_utf8(header).ok().and_then(|value| decode(value, false));
    let header = header.ok_or_else(|| Invalid::of("X-Device-Id", "is not valid percent-encoding."))?;
    let name = if header.trim().is_empty() { parameter.unwrap_or_default() } else { &*header };
    if [name, &*header].iter().any(|name| name.chars().any(char::is_control)) {
        return Err(Invalid::of("device_id", "must not contain control characters."));
    }
    Device::new(name.trim()).map(Some).map_err(|error| Invalid(Cow::Owned(error.to_string())))
}

/// The names of a query string, decoded, with their values as they are.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, &str), Invalid>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name, true).ok_or_else(|| Invalid("the query is not valid percent-encoding.".into()))?;
        Ok((name, value))
    })
}

/// The value of a parameter that is known by this name.
pub(super) fn value<'a>(name: &str, value: &'a str) -> Result<Cow<'a, str>, Invalid> {
    decode(value, true).ok_or_else(|| Invalid::of(name, "is not valid percent-encoding."))
}

/// A boolean as Go's form decoding accepts it; absent and empty are false.
fn boolean(name: &str, value: Option<&str>) -> Result<bool, Invalid> {
    match value.unwrap_or_default() {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" | "" => Ok(false),
        _ => Err(Invalid::of(name, "must be true or false.")),
    }
}

/// Percent-decoding that refuses what is not: a stray `%`, bytes that are not UTF-8. `form`: `+` is a space.
pub(super) fn decode(text: &str, form: bool) -> Option<Cow<'_, str>> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|&byte| byte == b'%' || (form && byte == b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    let digit = |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16));
    while let Some(&byte) = rest.next() {
        decoded.push(match byte {
            b'%' => u8::try_from(digit(rest.next())? << 4 | digit(rest.next())?).ok()?,
            b'+' if form => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn key(query: &str) -> Result<String, String> {
        keyed(query, &Facts::default())
    }

    fn keyed(query: &str, facts: &Facts<'_>) -> Result<String, String> {
        let read = Parameters::read(query, GATEWAY_NAMES).map_err(|error| error.0.into_owned())?;
        let default = Device::new("main").unwrap();
        let key = read.key(GATEWAY_NAMES, None, facts, &default).map_err(|error| error.0.into_owned())?;
        let (Key { subject, variant }, mut flags) = (key, String::new());
        flags += if variant.preview { " preview" } else { "" };
        flags += if variant.community { " community" } else { "" };
        Ok(format!("{}/{}{flags}", subject.device.as_str(), subject.jid))
    }

    #[test]
    fn reads_the_gateways_parameters() {
        assert_eq!(key("phone=628&is_preview=true").unwrap(), "main/628@s.whatsapp.net preview");
        assert_eq!(key("phone=%2B628%40s.whatsapp.net&x=%41&is_preview=F").unwrap(), "main/628@s.whatsapp.net");
        assert_eq!(key("phone=+628&is_community=1").unwrap(), "main/628@s.whatsapp.net");
        assert_eq!(key("is_community=T&phone=1%40g.us&device_id=b%20c&").unwrap(), "b c/1@g.us community");
    }

    #[test]
    fn the_device_header_goes_first_and_empty_is_the_default() {
        let keyed = |query, value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            keyed(query, &Facts { device: Some(&value), ..Facts::default() })
        };
        assert_eq!(keyed("phone=1&device_id=b", "a%C3%A9").unwrap(), "a\u{e9}/1@s.whatsapp.net");
        assert_eq!(keyed("phone=1&device_id=b", "").unwrap(), "b/1@s.whatsapp.net");
        assert_eq!(keyed("phone=1&device_id=", " ").unwrap(), "main/1@s.whatsapp.net");
        assert_eq!(keyed("phone=1", "%zz").unwrap_err(), "X-Device-Id: is not valid percent-encoding.");
        assert_eq!(keyed("phone=1", "%0d%0a").unwrap_err(), "device_id: must not contain control characters.");
        assert_eq!(keyed("phone=1", &"d".repeat(257)).unwrap_err(), "device_id: must be at most 256 bytes.");
    }

    #[test]
    fn refuses_what_is_odd_by_name() {
        for (query, error) in [
            ("", "phone: cannot be blank."),
            ("phone=", "phone: cannot be blank."),
            ("phone", "phone: cannot be blank."),
            ("phone=1&phone=1", "phone: must be given once."),
            ("phone=%", "phone: is not valid percent-encoding."),
            ("phone=%4", "phone: is not valid percent-encoding."),
            ("phone=%ff", "phone: is not valid percent-encoding."),
            ("%zz=1", "the query is not valid percent-encoding."),
            ("phone=1&is_preview=yes", "is_preview: must be true or false."),
            ("phone=1&is_preview=0&is_preview=1", "is_preview: must be given once."),
            ("phone=1&is_community=2", "is_community: must be true or false."),
            ("phone=1&device_id=a&device_id=b", "device_id: must be given once."),
        ] {
            assert_eq!(key(query).unwrap_err(), error, "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_query_panics(query in ".*") {
            let _ = key(&query);
        }

        #[test]
        fn what_is_encoded_is_decoded(text in ".*") {
            let encoded = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string();
            prop_assert_eq!(decode(&encoded, true).unwrap(), text);
        }
    }
}
