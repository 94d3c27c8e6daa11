//! Receivers of webhooks in other languages: the README's, word for word. Whatever is killed, each change is handled once, and
//! what is not genuine is refused.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Options, PersonHandle};
use http::Method;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::program::{Program, from_readme, python};
use crate::support::app::World;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::port;
use crate::support::process::Process;

const ADA: &str = "999001";
const BOB: &str = "999002";

const JSON: (&str, &str) = ("content-type", "application/json");

/// A receiver of the README: how it is started in a folder, and what it has handled there, as `999001 17 -> 18`.
struct Receiver {
    program: fn(&Path) -> Command,
    handled: fn(&Path) -> Vec<String>,
    /// Leaves there what a crash leaves of writing that it cuts off, where that is not a database's own business.
    cut_off: fn(&Path),
    folder: tempfile::TempDir,
    address: SocketAddr,
}

fn line(jid: &str, old: &str, new: &str) -> String {
    format!("{} {old} -> {new}", jid.trim_end_matches("@s.whatsapp.net"))
}

fn in_python() -> Receiver {
    Receiver::new(
        |folder| from_readme("Webhooks", "python", python(), folder),
        |folder| {
            let db = rusqlite::Connection::open(folder.join("webhooks.db")).unwrap();
            let mut rows = db.prepare("SELECT jid, old_id, new_id FROM changes ORDER BY rowid").unwrap();
            let text = |row: &rusqlite::Row<'_>, place| row.get::<_, String>(place);
            let lines = rows.query_map([], |row| Ok(line(&text(row, 0)?, &text(row, 1)?, &text(row, 2)?))).unwrap();
            lines.map(Result::unwrap).collect()
        },
        |_| {},
    )
}

fn in_javascript() -> Receiver {
    Receiver::new(
        |folder| from_readme("Webhooks", "js", Command::new("node"), folder),
        |folder| {
            let written = std::fs::read(folder.join("changes.jsonl")).unwrap();
            let written = String::from_utf8_lossy(&written);
            let whole = written.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let events = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let changes = events.filter(|event| event["event"] == "avatar.changed");
            let text = |event: &Value, field| event[field].as_str().unwrap_or_default().to_owned();
            changes.map(|event| line(&text(&event, "jid"), &text(&event, "old_id"), &text(&event, "new_id"))).collect()
        },
        |folder| {
            let mut file = OpenOptions::new().append(true).open(folder.join("changes.jsonl")).unwrap();
            // In the middle of a character.
            file.write_all(b"{\"id\":\"\xc3").unwrap();
        },
    )
}

impl Receiver {
    fn new(program: fn(&Path) -> Command, handled: fn(&Path) -> Vec<String>, cut_off: fn(&Path)) -> Self {
        Self { program, handled, cut_off, folder: tempfile::tempdir().unwrap(), address: port::free() }
    }

    /// Starts it, and waits until it listens.
    async fn start(&self, secret: &str) -> Program {
        let mut command = (self.program)(self.folder.path());
        command.env("WEBHOOK_SECRET", secret).env("PORT", self.address.port().to_string());
        let program = Program::start(&mut command);
        eventually("it listens", async || TcpStream::connect(self.address).is_ok()).await;
        program
    }

    fn url(&self) -> String {
        format!("http://{}/avatars", self.address)
    }

    fn handled(&self) -> Vec<String> {
        (self.handled)(self.folder.path())
    }

    /// Waits until it has handled this. Somebody asks for the person meanwhile, so that a look that a kill has cut off is not
    /// waited for until its lease runs out.
    async fn handles(&self, proxy: &Process, person: &str, old: &str, new: &str) {
        let line = line(person, old, new);
        eventually(&format!("it handles {line}"), async || {
            let handled = self.handled().contains(&line);
            if !handled {
                proxy.client.avatar(person).await;
            }
            handled
        })
        .await;
    }
}

/// A gateway whose people are looked at all the time, and flags for a proxy that has the same address after each kill.
async fn world() -> (World, PersonHandle, PersonHandle) {
    let world = World::with(Options::default(), Clock::system()).await;
    let world = world.flag("--recheck-interval=100ms").flag("--webhook-allow-private");
    let [ada, bob] = [ADA, BOB].map(|person| world.gateway.person(person).picture("17"));
    (world.flag(&format!("--listen={}", port::free())), ada, bob)
}

/// Asks for something to be done about an endpoint; what the answer says.
async fn ask(proxy: &Process, method: Method, target: &str, wish: Value) -> Value {
    let answer = proxy.client.send_body(method, target, &[JSON], &wish.to_string()).await;
    assert!(answer.status.is_success(), "{target}: {answer:?}");
    answer.json()
}

async fn handles_each_change_once(receiver: Receiver, wish: Value) {
    let (world, ada, bob) = world().await;
    let proxy = Process::start(&world);
    for person in [ADA, BOB] {
        proxy.client.avatar(person).await;
    }
    let mut wish = wish;
    wish["url"] = receiver.url().into();
    let made = ask(&proxy, Method::POST, "/webhooks", wish).await;
    let (secret, endpoint) = (made["secret"].as_str().unwrap(), format!("/webhooks/{}", made["id"].as_str().unwrap()));
    let receiving = receiver.start(secret).await;
    let tested = ask(&proxy, Method::POST, &format!("{endpoint}/test"), json!(null)).await;
    assert_eq!((&tested["delivered"], &tested["result"]), (&json!(true), &json!("204")));
    ada.picture("18");
    receiver.handles(&proxy, ADA, "17", "18").await;

    // Killed, perhaps before its answer arrives; away for some attempts; and back.
    drop(receiving);
    (receiver.cut_off)(receiver.folder.path());
    for (person, picture) in [(&ada, "19"), (&bob, "118")] {
        person.picture(picture);
    }
    eventually("it is missed", async || {
        let shown = proxy.client.get(&endpoint).await.json();
        shown["pending"] != 0
    })
    .await;
    let receiving = receiver.start(secret).await;
    receiver.handles(&proxy, ADA, "18", "19").await;
    receiver.handles(&proxy, BOB, "17", "118").await;

    // The proxy is killed the moment that something is handled: as a rule it has not written that down yet, and sends it again.
    let mut proxy = proxy;
    for picture in 119..124 {
        bob.picture(&picture.to_string());
        receiver.handles(&proxy, BOB, &(picture - 1).to_string(), &picture.to_string()).await;
        drop(proxy);
        proxy = Process::start(&world);
    }
    ada.picture("20");
    receiver.handles(&proxy, ADA, "19", "20").await;

    // The receiver knows the old secret, then the new one.
    let rotated = ask(&proxy, Method::PATCH, &endpoint, json!({"rotate": true})).await;
    let new_secret = rotated["secret"].as_str().unwrap();
    ada.picture("21");
    receiver.handles(&proxy, ADA, "20", "21").await;
    drop(receiving);
    let receiving = receiver.start(new_secret).await;
    ada.picture("22");
    receiver.handles(&proxy, ADA, "21", "22").await;

    // All of it again, and then something new.
    ask(&proxy, Method::POST, &format!("{endpoint}/replay"), json!({"after": ""})).await;
    for (person, picture) in [(&ada, "23"), (&bob, "124")] {
        person.picture(picture);
    }
    receiver.handles(&proxy, ADA, "22", "23").await;
    receiver.handles(&proxy, BOB, "123", "124").await;
    refuses_what_is_not_genuine(&receiver, new_secret).await;

    let of = |person: &str| -> Vec<String> {
        receiver.handled().into_iter().filter_map(|line| Some(line.strip_prefix(person)?.to_owned())).collect()
    };
    let expected = ["17 -> 18", "18 -> 19", "19 -> 20", "20 -> 21", "21 -> 22", "22 -> 23", "forged -> genuine"];
    assert_eq!(of(ADA), expected.map(|line| format!(" {line}")), "each once, in order");
    let pictures = [" 17 -> 118".to_owned()].into_iter().chain((118..124).map(|old| format!(" {old} -> {}", old + 1)));
    assert_eq!(of(BOB), pictures.collect::<Vec<_>>(), "each once, in order");
    drop((receiving, proxy));
}

/// Sends it deliveries that differ from a genuine one in one thing each, and at last that one, twice.
async fn refuses_what_is_not_genuine(receiver: &Receiver, secret: &str) {
    let sender = Client::new(receiver.address);
    let signer = match secret.strip_prefix("whsec_") {
        Some(_) => Webhook::new(secret).unwrap(),
        None => Webhook::from_bytes(secret.as_bytes().to_vec()).unwrap(),
    };
    let now = Clock::system().now().as_millis() / 1000;
    let body = json!({"event": "avatar.changed", "device_id": "", "payload": {
        "id": "e1", "jid": format!("{ADA}@s.whatsapp.net"), "old_id": "forged", "new_id": "genuine"}})
    .to_string();
    let sign = |id: &str, at: i64, body: &str| signer.sign(id, at, body.as_bytes()).unwrap();
    let send = async |id: &str, at: &str, signatures: &str, body: &str| {
        let headers = [JSON, ("webhook-id", id), ("webhook-timestamp", at), ("webhook-signature", signatures)];
        sender.send_body(Method::POST, "/avatars", &headers, body).await.status.as_u16()
    };
    let (at, genuine) = (now.to_string(), sign("e1", now, &body));
    let stranger = Webhook::from_bytes(b"another secret".to_vec()).unwrap().sign("e1", now, body.as_bytes()).unwrap();
    let altered = body.replace("forged", "turned");
    let (past, future) = (now - 310, now + 310);
    let (of_the_past, of_the_future) = (sign("e1", past, &body), sign("e1", future, &body));
    for (what, id, at, signatures, body) in [
        ("forged", "e1", &at, &stranger, &body),
        ("altered", "e1", &at, &genuine, &altered),
        ("shortened", "e1", &at, &genuine, &body[..body.len() - 1].to_owned()),
        ("under another id", "e2", &at, &genuine, &body),
        ("old", "e1", &past.to_string(), &of_the_past, &body),
        ("of the future", "e1", &future.to_string(), &of_the_future, &body),
        ("old, said to be new", "e1", &at, &of_the_past, &body),
        ("of no time", "e1", &"now".to_owned(), &genuine, &body),
        ("of another kind", "e1", &at, &genuine.replace("v1,", "v1a,"), &body),
        ("signed by half", "e1", &at, &genuine[..genuine.len() / 2].to_owned(), &body),
        ("not signed", "e1", &at, &String::new(), &body),
    ] {
        let status = send(id, at, signatures, body).await;
        assert!((400..500).contains(&status), "{what}: {status}");
    }
    let bare = sender.send_body(Method::POST, "/avatars", &[JSON], &body).await;
    assert!(bare.status.is_client_error(), "{bare:?}");
    for signatures in [format!("{stranger} {genuine}"), genuine] {
        assert_eq!(send("e1", &at, &signatures, &body).await, 204);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python: make e2e"]
async fn the_readmes_receiver_in_python_handles_each_change_once() {
    handles_each_change_once(in_python(), json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Node.js: make e2e"]
async fn the_readmes_receiver_in_javascript_handles_each_change_once() {
    handles_each_change_once(in_javascript(), json!({"secret": "a-plain-secret"})).await;
}
