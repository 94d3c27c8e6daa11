//! The gateway: does it answer, does it let us in, has it the device, what time is it there; and, for whoever names somebody, one
//! lookup.

use std::time::Duration;

use super::{Finding, PATIENCE, clocks, shown};
use crate::clock::Clock;
use crate::gateway::failure::Nonsense;
use crate::gateway::probe::{Answer, Said, Silence};
use crate::gateway::{Config, Gateway};
use crate::jid::{Device, Jid, Key, Subject, Variant};
use crate::outcome::{Class, Failure, Outcome, Reason};

const GATEWAY: &str = "gateway";
const CREDENTIALS: &str = "credentials";
const DEVICE: &str = "device";
const LOOKUP: &str = "lookup";

/// A gateway that takes longer than this to say how it is is slow at everything.
const SLOW: Duration = Duration::from_secs(2);

pub(super) async fn findings(config: Config, device: Device, lookup: Option<Jid>, clock: &Clock) -> Vec<Finding> {
    let with_password = config.auth.is_some();
    let patient = Config { timeout: config.timeout.min(PATIENCE), ..config.clone() };
    let (gateway, looks) = match (Gateway::new(patient, clock.clone()), Gateway::new(config, clock.clone())) {
        (Ok(gateway), Ok(looks)) => (gateway, looks),
        (Err(error), _) | (_, Err(error)) => return vec![Finding::refused(GATEWAY, error)],
    };
    let answer = match gateway.probe(&device).await {
        Ok(answer) => answer,
        Err(silence) => return vec![silent(silence)],
    };
    let mut findings = vec![reached(&answer)];
    findings.extend(credentials(answer.said, with_password));
    findings.extend(of_device(answer.said, &device));
    // A date has whole seconds, and is as old as its way here.
    let off_by = answer.took + Duration::from_secs(1);
    if !matches!(answer.said, Said::Nonsense(..)) {
        findings.extend(answer.date.map(|date| clocks("gateway's clock", "the gateway's", date, clock.now(), off_by)));
    }
    if let Some(jid) = lookup {
        let key = Key { subject: Subject { device, jid }, variant: Variant::default() };
        let began = clock.elapsed();
        let looked = looks.lookup(&key).await;
        findings.push(looked_up(looked, clock.elapsed().saturating_sub(began)));
    }
    findings
}

fn silent(silence: Silence) -> Finding {
    let (what, remedy) = match silence {
        Silence::Late => ("it does not answer in time", "see whether it hangs, or is overloaded"),
        Silence::Broken(Nonsense::NameNotFound) => {
            ("its name has no address", "correct --gateway-url, or what this machine knows of names (DNS)")
        }
        Silence::Broken(Nonsense::Refused) => {
            ("nobody listens there", "start the gateway, or correct the port in --gateway-url")
        }
        Silence::Broken(Nonsense::ConnectTimeout) => {
            ("no connection comes about", "see what stands in between: a firewall, a network, a wrong address")
        }
        Silence::Broken(Nonsense::Tls) => {
            ("no secure connection can be made", "see that it speaks https, and what its certificate is")
        }
        Silence::Broken(Nonsense::Untrusted) => (
            "its certificate is of an authority that this machine does not know",
            "name a private authority with --gateway-ca",
        ),
        Silence::Broken(Nonsense::OtherName) => (
            "its certificate is for another name",
            "write the name that the certificate is for in --gateway-url, or have one made for this name",
        ),
        Silence::Broken(Nonsense::NotInForce) => {
            ("its certificate has expired, or is not valid yet", "renew it, or correct this machine's clock")
        }
        Silence::Broken(Nonsense::NotHttp) => ("what answers there is not HTTP", "correct --gateway-url"),
        Silence::Broken(Nonsense::BrokenOff) => {
            ("it takes the connection and breaks it off", "see whether it wants https, and what its log says")
        }
        Silence::Broken(_) => ("it cannot be reached", "correct --gateway-url, or the network on the way"),
    };
    Finding::wrong(GATEWAY, what, remedy)
}

fn reached(answer: &Answer) -> Finding {
    let took = shown(answer.took);
    match answer.said {
        Said::Nonsense(Nonsense::Redirect, status) => Finding::wrong(
            GATEWAY,
            format!("it leads elsewhere (status {status})"),
            "give the address that it leads to as --gateway-url",
        ),
        Said::Nonsense(_, status) => Finding::wrong(
            GATEWAY,
            format!("what answers there does not speak as a GoWA gateway does (status {status})"),
            "correct --gateway-url, its base path too; behind a balancer, see whether the gateway itself runs",
        ),
        Said::Nothing(status) => Finding::warning(
            GATEWAY,
            format!("it answers in {took}, but not to /app/status (status {status})"),
            "see that --gateway-url is the gateway's with its base path; if so, --lookup tells the rest",
        ),
        Said::Starting => Finding::wrong(GATEWAY, "it is still starting", "try again soon"),
        Said::Failing(status) => Finding::wrong(
            GATEWAY,
            format!("it answers that it failed (status {status})"),
            "its log says why; try again when that is mended",
        ),
        _ if answer.took > SLOW => {
            Finding::warning(GATEWAY, format!("it answers in {took}"), "see what keeps it busy, or what is on the way")
        }
        _ => Finding::ok(GATEWAY, format!("it answers in {took}")),
    }
}

fn credentials(said: Said, given: bool) -> Option<Finding> {
    Some(match (said, given) {
        (Said::Refused(status), true) => Finding::wrong(
            CREDENTIALS,
            format!("the gateway refuses this user and password (status {status})"),
            "correct --gateway-auth, or the gateway's own list (its --basic-auth)",
        ),
        (Said::Refused(status), false) => Finding::wrong(
            CREDENTIALS,
            format!("the gateway asks for a user and password (status {status}), and none are given"),
            "give them with --gateway-auth, or its file with AVATAR_PROXY_GATEWAY_AUTH_FILE",
        ),
        // Whoever says so may be anybody.
        (Said::Nonsense(..) | Said::Nothing(_), _) => return None,
        (_, true) => Finding::ok(CREDENTIALS, "the gateway accepts them"),
        (_, false) => Finding::ok(CREDENTIALS, "the gateway asks for none"),
    })
}

fn of_device(said: Said, device: &Device) -> Option<Finding> {
    Some(match said {
        Said::Ready => Finding::ok(DEVICE, "it is logged in and connected"),
        Said::Offline => Finding::wrong(
            DEVICE,
            "it is logged in, and not connected to WhatsApp",
            "wait a minute; if it stays so, have the gateway reconnect it (GET /app/reconnect), and look at its network",
        ),
        Said::LoggedOut => Finding::wrong(
            DEVICE,
            "it is not logged in",
            "log the account in at the gateway, by its QR code or pairing code",
        ),
        Said::DeviceUnknown => Finding::wrong(
            DEVICE,
            "the gateway does not know the one that is named",
            "correct --default-device, or make the device at the gateway",
        ),
        Said::DeviceRequired if device.as_str().is_empty() => Finding::warning(
            DEVICE,
            "the gateway has several, or none, and wants one to be named",
            "give --default-device, unless every client names one (X-Device-Id)",
        ),
        Said::DeviceRequired => {
            Finding::wrong(DEVICE, "its name does not arrive", "see what stands in between and drops X-Device-Id")
        }
        Said::Starting | Said::Failing(_) | Said::Refused(_) | Said::Nothing(_) | Said::Nonsense(..) => return None,
    })
}

fn looked_up(looked: Result<Outcome, Failure>, took: Duration) -> Finding {
    let took = shown(took);
    let failure = match looked {
        Ok(Outcome::Present(_)) => return Finding::ok(LOOKUP, format!("a picture was found, in {took}")),
        Ok(Outcome::Negative(negative)) => {
            let what = match negative.reason {
                Reason::NotSet => "this person has no picture",
                Reason::Hidden => "this person hides the picture from the account",
                Reason::Unregistered => "this number is not on WhatsApp, says the gateway",
            };
            return Finding::ok(LOOKUP, format!("{what}; that took {took}"));
        }
        Err(failure) => failure,
    };
    let (what, remedy) = match failure.class {
        Class::RateLimited => (
            "WhatsApp limits the account's rate",
            "let the account rest for an hour, and see who else looks people up with it",
        ),
        Class::Device => ("the device cannot look anybody up", "log it in at the gateway, or name another"),
        Class::Credentials => ("the gateway refuses the proxy's credentials", "correct --gateway-auth"),
        Class::Request => ("the gateway does not take this number", "write it in full, with its country's code"),
        Class::Late => ("it took longer than --gateway-timeout", "see what keeps the gateway busy"),
        Class::Passing => ("the gateway failed", "try again; its log says why"),
        Class::Nonsense => ("the answer is not one of a gateway", "correct --gateway-url"),
    };
    Finding::wrong(LOOKUP, format!("{what} ({})", failure.detail), remedy)
}
