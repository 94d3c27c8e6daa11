//! What the gateway says.

use avatar_proxy::outcome::{Class, Envelope, Failure, Negative, Outcome, Picture, Reason};

use crate::population::{URL_GRAIN, URL_LIFE};

/// A picture, by its number, whose URL is signed now (ms since the Unix epoch).
pub(crate) fn picture(person: usize, number: u32, now: i64) -> Outcome {
    let expires = (now + URL_LIFE) / URL_GRAIN * URL_GRAIN / 1000;
    let url = format!("https://pps.example/v/{person}_{number}_n.jpg?oh=1&oe={expires:X}");
    Outcome::Present(Picture::new(&url, &number.to_string(), "image"))
}

pub(crate) fn hidden() -> Outcome {
    let message = "the user has hidden their profile picture from you".into();
    Outcome::Negative(Negative { reason: Reason::Hidden, status: 500, code: "INTERNAL_SERVER_ERROR".into(), message })
}

pub(crate) fn slow_down() -> Failure {
    let message = "info query returned status 429: rate-overlimit".into();
    Failure {
        class: Class::RateLimited,
        retry: false,
        reply: Envelope { status: 500, code: "INTERNAL_SERVER_ERROR".into(), message, results: None },
        detail: "rate-overlimit".into(),
    }
}
