//! Webhooks that are always there: addresses, and what deliveries to them are signed with.

use super::quantities;
use super::sources::{Noted, Settings};
use crate::events::webhook::{self, Config, Given};
use crate::outbound::{Reach, parse_url};

/// Reads all of it.
pub(super) fn read(settings: &mut Settings) -> Result<Config, Noted> {
    let urls = settings.optional("--webhook", urls).map(Option::unwrap_or_default);
    let secrets = settings.optional("--webhook-secret", secrets).map(Option::unwrap_or_default);
    let allow_private = settings.value("--webhook-allow-private", quantities::switch);
    let limit = settings.value("--webhook-limit", quantities::count);
    let given = match (urls, secrets) {
        (Ok(urls), Ok(secrets)) => match pair(urls, secrets) {
            Ok(given) => given,
            Err(wrong) => return Err(settings.object("--webhook-secret", wrong)),
        },
        (urls, secrets) => return Err(urls.err().or(secrets.err()).unwrap_or(Noted)),
    };
    Ok(Config { given, allow_private: allow_private?, limit: u64::from(limit?) })
}

/// Addresses with commas in between. One may hold commas itself, as long as no scheme stands behind them.
fn urls(text: &str) -> Result<Vec<String>, String> {
    let mut urls: Vec<String> = vec![];
    for part in text.split(',').map(str::trim) {
        match urls.last_mut() {
            Some(last) if !part.contains("://") => {
                last.push(',');
                last.push_str(part);
            }
            _ => urls.push(part.to_owned()),
        }
    }
    for (place, url) in (1..).zip(&urls) {
        parse_url(url, Reach::Anywhere).map_err(|wrong| format!("address {place} {wrong}"))?;
        if urls[..place - 1].contains(url) {
            return Err(format!("address {place} was given before; give each once"));
        }
    }
    Ok(urls)
}

fn secrets(text: &str) -> Result<Vec<String>, String> {
    let secrets = (1..).zip(text.split(',')).map(|(place, secret)| {
        webhook::check(secret).map(|()| secret.to_owned()).map_err(|wrong| format!("secret {place} {wrong}"))
    });
    secrets.collect()
}

fn pair(urls: Vec<String>, secrets: Vec<String>) -> Result<Vec<Given>, String> {
    let secrets = match (urls.len(), secrets.len()) {
        (0, 1..) => return Err("has no effect without --webhook".to_owned()),
        (addresses, 0 | 1) => vec![secrets.into_iter().next(); addresses],
        (addresses, count) if addresses == count => secrets.into_iter().map(Some).collect(),
        (addresses, count) => {
            return Err(format!(
                "there are {count} secrets for {addresses} addresses; give one for all of them, or one for each"
            ));
        }
    };
    Ok(urls.into_iter().zip(secrets).map(|(url, secret)| Given { url, secret }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(urls_text: &str, secrets_text: Option<&str>) -> Result<Vec<(String, Option<String>)>, String> {
        let given = pair(urls(urls_text)?, secrets_text.map_or(Ok(vec![]), secrets)?)?;
        Ok(given.into_iter().map(|given| (given.url, given.secret)).collect())
    }

    fn some(url: &str, secret: &str) -> (String, Option<String>) {
        (url.to_owned(), Some(secret.to_owned()))
    }

    #[test]
    fn one_secret_is_for_all_and_several_are_for_each() {
        assert_eq!(pairs("http://a/x", None).unwrap(), [("http://a/x".to_owned(), None)]);
        assert_eq!(pairs("http://a, https://b", Some("s")).unwrap(), [some("http://a", "s"), some("https://b", "s")]);
        assert_eq!(pairs("http://a,http://b", Some("s,t")).unwrap(), [some("http://a", "s"), some("http://b", "t")]);
        for (urls, secrets, error) in [
            ("http://a", "s,t", "there are 2 secrets for 1 addresses"),
            ("http://a,http://b,http://c", "s,t", "there are 2 secrets for 3 addresses"),
            ("http://a", "", "secret 1 must be"),
            ("http://a,http://b", "s,a b", "secret 2 must be"),
            ("http://a", "whsec_!", "secret 1 must be"),
        ] {
            let wrong = pairs(urls, Some(secrets)).unwrap_err();
            assert!(wrong.starts_with(error), "{wrong}");
        }
    }

    #[test]
    fn an_address_may_hold_commas() {
        assert_eq!(urls("http://a/x?l=1,2,http://b").unwrap(), ["http://a/x?l=1,2", "http://b"]);
    }

    #[test]
    fn a_wrong_address_is_named_by_its_place() {
        for (text, error) in [
            ("", "address 1 is not a URL"),
            ("http://a,ftp://b", "address 2 must begin with"),
            ("http://a,http://u:p@b", "address 2 must not hold a user"),
            ("http://a,http://b,http://a", "address 3 was given before"),
        ] {
            let wrong = urls(text).unwrap_err();
            assert!(wrong.starts_with(error), "{wrong}");
        }
    }
}
