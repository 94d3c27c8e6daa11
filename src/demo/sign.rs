//! Signed addresses of pictures, made and checked.
//!
//! The path depends on person and picture and stays the same however often it is signed; `oe` is the expiry, in steps, and `oh`
//! is a digest of path and `oe`. So a different URL is not a different picture, exactly as with the real image host.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::script::Shape;
use crate::clock::Timestamp;

const FOLDER: &str = "/v/t61.24694-24/";
const SMALL: &str = "s96x96/";

/// Signs with a secret of its own.
#[derive(Debug)]
pub(super) struct Signer {
    secret: u64,
    base: String,
}

/// What the image host makes of an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict<'a> {
    /// To be served: the file's name, and whether the small form is asked for.
    Good { file: &'a str, small: bool },
    /// Not a picture's path.
    Unknown,
    /// `oh` does not fit.
    BadHash,
    /// `oe` has passed.
    Expired,
}

impl Signer {
    /// `base` is scheme and authority of the host that serves the pictures.
    pub(super) fn new(secret: u64, base: String) -> Self {
        Self { secret, base }
    }

    /// The address of `file`, until `oe`; an `oe` of `None` leaves the parameter out.
    pub(super) fn sign(&self, file: &str, small: bool, oe: Option<&str>, shape: Shape) -> String {
        let lower = oe.map(str::to_lowercase);
        let oe = if shape == Shape::Lowercase { lower.as_deref() } else { oe };
        let folder = if small && shape != Shape::Long { SMALL } else { "" };
        let path = format!("{FOLDER}{folder}{file}");
        let oh = ("oh", Some(self.oh(&path, oe)));
        let oe = ("oe", oe.map(str::to_owned));
        let text = |text: &str| Some(text.to_owned());
        let size = if small { "dst-jpg_s96x96_tt6" } else { "dst-jpg_tt6" };
        let parameters = match shape {
            Shape::Long => vec![
                ("stp", text(size)),
                ("ccb", text("11-4")),
                oh,
                oe,
                ("_nc_sid", text("5e03e0")),
                ("_nc_cat", text("100")),
            ],
            Shape::Short | Shape::Lowercase => vec![("ccb", text("11-4")), oh, oe],
            Shape::OhOe => vec![oh, oe],
            Shape::OeOh => vec![oe, oh],
        };
        let query: Vec<_> =
            parameters.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name}={value}"))).collect();
        format!("{}{path}?{}", self.base, query.join("&"))
    }

    /// Judges a request at the image host.
    pub(super) fn verify<'a>(&self, path: &'a str, query: &str, now: Timestamp) -> Verdict<'a> {
        let Some(rest) = path.strip_prefix(FOLDER) else { return Verdict::Unknown };
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let oe = value("oe");
        if value("oh") != Some(self.oh(path, oe).as_str()) {
            return Verdict::BadHash;
        }
        let until = oe.and_then(|oe| i64::from_str_radix(oe, 16).ok()).map(Timestamp::from_seconds);
        if until.is_some_and(|until| now > until) {
            return Verdict::Expired;
        }
        match rest.strip_prefix(SMALL) {
            Some(file) => Verdict::Good { file, small: true },
            None => Verdict::Good { file: rest, small: value("stp").is_some_and(|stp| stp.contains("s96x96")) },
        }
    }

    fn oh(&self, path: &str, oe: Option<&str>) -> String {
        let mut digest = Sha256::new();
        digest.update(self.secret.to_be_bytes());
        digest.update(path);
        digest.update("?");
        digest.update(oe.unwrap_or_default());
        hex::encode(&digest.finalize()[..16])
    }
}

/// `lifetime` from now, up to the next whole `step`, as `oe`.
pub(super) fn oe_after(now: Timestamp, lifetime: Duration, step: Duration) -> String {
    let step = i64::try_from(step.as_secs()).unwrap_or(i64::MAX).max(1);
    let until = (now + lifetime).as_millis();
    let seconds = until.div_euclid(1000) + i64::from(until.rem_euclid(1000) > 0);
    oe_at(Timestamp::from_seconds(seconds.saturating_add(step - 1).div_euclid(step).saturating_mul(step)))
}

/// An instant as `oe`, cut to whole seconds.
pub(super) fn oe_at(until: Timestamp) -> String {
    format!("{:X}", until.as_millis().div_euclid(1000))
}

/// The name of the file that holds this picture of this person.
pub(super) fn file_name(person: &str, picture: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(person);
    digest.update("/");
    digest.update(picture);
    let digest = digest.finalize();
    let number = |at: usize, digits: u32| {
        let bytes = digest[at..at + 8].try_into().expect("eight bytes");
        let least = 10_u64.pow(digits - 1);
        least + u64::from_be_bytes(bytes) % (9 * least)
    };
    format!("{}_{}_{}_n.jpg", number(0, 9), number(8, 15), number(16, 19))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

    fn verdict<'a>(signer: &Signer, url: &'a str, now: Timestamp) -> Verdict<'a> {
        let (path, query) = url.strip_prefix("http://host").unwrap().split_once('?').unwrap();
        signer.verify(path, query, now)
    }

    #[test]
    fn what_was_signed_is_good_until_it_expires_and_not_when_altered() {
        let signer = Signer::new(7, "http://host".to_owned());
        let oe = oe_after(NOW, Duration::from_secs(60), Duration::from_secs(1));
        for shape in [Shape::Long, Shape::Short, Shape::OhOe, Shape::OeOh, Shape::Lowercase] {
            for small in [false, true] {
                let url = signer.sign("1_2_3_n.jpg", small, Some(&oe), shape);
                let last = NOW + Duration::from_secs(60);
                assert_eq!(verdict(&signer, &url, last), Verdict::Good { file: "1_2_3_n.jpg", small }, "{url}");
                assert_eq!(verdict(&signer, &url, last + Duration::from_millis(1)), Verdict::Expired);
                assert_eq!(verdict(&signer, &url.replace("1_2_3", "1_2_4"), NOW), Verdict::BadHash);
                assert_eq!(
                    verdict(&signer, &url.replace(&oe, "7FFFFFFF").replace("oe=6", "oe=7"), NOW),
                    Verdict::BadHash
                );
            }
        }
    }

    #[test]
    fn the_expiry_moves_in_steps_and_never_falls_short() {
        let step = Duration::from_secs(3600);
        let one = oe_after(NOW, Duration::from_secs(600), step);
        assert_eq!(one, oe_after(NOW + Duration::from_secs(1), Duration::from_secs(600), step));
        let until = i64::from_str_radix(&one, 16).unwrap();
        assert_eq!(until % 3600, 0);
        assert!(Timestamp::from_seconds(until).since(NOW) >= Duration::from_secs(600));
    }

    #[test]
    fn a_file_is_named_after_person_and_picture() {
        let name = file_name("1@s.whatsapp.net", "1635239861");
        assert_eq!(name, file_name("1@s.whatsapp.net", "1635239861"));
        assert_ne!(name, file_name("2@s.whatsapp.net", "1635239861"));
        assert_ne!(name, file_name("1@s.whatsapp.net", "1635239862"));
        let lengths: Vec<_> = name.trim_end_matches("_n.jpg").split('_').map(str::len).collect();
        assert_eq!(lengths, [9, 15, 19]);
    }
}
