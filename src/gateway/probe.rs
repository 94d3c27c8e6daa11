//! A question that costs the account nothing: `GET /app/status`, which a gateway answers from what it knows.
//!
//! It goes the way of a lookup (address, TLS, credentials, device) up to where WhatsApp would be asked, and no further. A lookup of
//! somebody who cannot be is no such question: gateways are known that go on with it after they have refused it.

use std::time::{Duration, Instant};

use http::header::DATE;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::failure::Nonsense;
use super::{Gateway, read, reply, what_happened};
use crate::clock::Timestamp;
use crate::jid::Device;

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// How long it took, with the connection.
    pub took: Duration,
    /// What time it is there, in whole seconds.
    pub date: Option<Timestamp>,
    /// What it says.
    pub said: Said,
}

/// What a gateway says of itself and of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// The device is logged in, and connected to WhatsApp.
    Ready,
    /// The device is logged in, and not connected.
    Offline,
    /// The device is not logged in.
    LoggedOut,
    /// There is no such device.
    DeviceUnknown,
    /// There are several devices, or none, and none was named.
    DeviceRequired,
    /// It is not done with starting.
    Starting,
    /// It says that it failed.
    Failing(u16),
    /// It does not let us in.
    Refused(u16),
    /// It has no such page, or does not show it now.
    Nothing(u16),
    /// This is no answer of a gateway.
    Nonsense(Nonsense, u16),
}

/// Why nothing came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silence {
    /// It took longer than a lookup may.
    Late,
    /// There was no connection, or it broke.
    Broken(Nonsense),
}

impl Gateway {
    /// Asks how a device is.
    ///
    /// # Errors
    /// When nothing came back.
    pub async fn probe(&self, device: &Device) -> Result<Answer, Silence> {
        let began = Instant::now();
        let asking = async {
            let response = self.client.request(self.get("/app/status", device)).await;
            let response = response.map_err(|error| Silence::Broken(what_happened(&error)))?;
            let (status, date) = (response.status(), date(response.headers()));
            let said = match reply::by_status(status) {
                Some(_) => by_status(status),
                None => read(response.into_body())
                    .await
                    .map_or_else(|why| Said::Nonsense(why, status.as_u16()), |body| understood(status, &body)),
            };
            Ok(Answer { took: began.elapsed(), date, said })
        };
        tokio::time::timeout(self.timeout, asking).await.unwrap_or(Err(Silence::Late))
    }
}

fn date(headers: &HeaderMap) -> Option<Timestamp> {
    Some(httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?.into())
}

fn by_status(status: StatusCode) -> Said {
    match status.as_u16() {
        403 => Said::Refused(403),
        429 => Said::Nothing(429),
        redirect => Said::Nonsense(Nonsense::Redirect, redirect),
    }
}

/// What `/app/status` tells.
#[derive(Deserialize)]
struct Status {
    is_connected: bool,
    is_logged_in: bool,
}

fn understood(status: StatusCode, body: &[u8]) -> Said {
    let number = status.as_u16();
    let Some(said) = reply::Said::read(body) else {
        return match number {
            401 => Said::Refused(number),
            404 | 405 => Said::Nothing(number),
            _ => Said::Nonsense(Nonsense::NoEnvelope, number),
        };
    };
    if let Some(status) = said.results().filter(|_| status.is_success()) {
        return match serde_json::from_str(status) {
            Ok(Status { is_logged_in: false, .. }) => Said::LoggedOut,
            Ok(Status { is_connected: false, .. }) => Said::Offline,
            Ok(_) => Said::Ready,
            Err(_) => Said::Nonsense(Nonsense::Unexpected, number),
        };
    }
    match said.code() {
        "DEVICE_NOT_FOUND" => Said::DeviceUnknown,
        "DEVICE_ID_REQUIRED" => Said::DeviceRequired,
        "DEVICE_MANAGER_UNAVAILABLE" => Said::Starting,
        "AUTHENTICATION_ERROR" | "INVALID_WA_CLI" => Said::LoggedOut,
        _ if number == 401 => Said::Refused(number),
        _ if number == 404 || number == 405 => Said::Nothing(number),
        _ if status.is_server_error() => Said::Failing(number),
        _ => Said::Nonsense(Nonsense::Unexpected, number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gateway_says_of_a_device_is_understood() {
        let status = |connected: bool, logged_in: bool| {
            let results = format!(r#"{{"device_id":"a","is_connected":{connected},"is_logged_in":{logged_in}}}"#);
            format!(r#"{{"code":"SUCCESS","message":"Connection status retrieved","results":{results}}}"#)
        };
        let failure = |code: &str| format!(r#"{{"code":"{code}","message":"m"}}"#);
        for (number, body, said) in [
            (200, status(true, true), Said::Ready),
            (200, status(false, true), Said::Offline),
            (200, status(false, false), Said::LoggedOut),
            (401, failure("AUTHENTICATION_ERROR"), Said::LoggedOut),
            (500, failure("INVALID_WA_CLI"), Said::LoggedOut),
            (400, failure("DEVICE_ID_REQUIRED"), Said::DeviceRequired),
            (404, failure("DEVICE_NOT_FOUND"), Said::DeviceUnknown),
            (503, failure("DEVICE_MANAGER_UNAVAILABLE"), Said::Starting),
            (500, failure("INTERNAL_SERVER_ERROR"), Said::Failing(500)),
            (401, "Unauthorized".into(), Said::Refused(401)),
            (404, "Cannot GET /app/status".into(), Said::Nothing(404)),
            (404, failure("NOT_FOUND"), Said::Nothing(404)),
            (502, "<html>".into(), Said::Nonsense(Nonsense::NoEnvelope, 502)),
            (200, "OK".into(), Said::Nonsense(Nonsense::NoEnvelope, 200)),
            (200, failure("SUCCESS"), Said::Nonsense(Nonsense::Unexpected, 200)),
        ] {
            assert_eq!(understood(StatusCode::from_u16(number).unwrap(), body.as_bytes()), said, "{number} {body}");
        }
    }
}
