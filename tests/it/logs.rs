//! What must never be in the log: people's numbers, links to their pictures, secrets.

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::{Options, Reply};

use crate::support::app::World;
use crate::support::process::Process;

#[tokio::test]
async fn no_line_holds_a_number_a_link_or_a_secret_whatever_happened() {
    let credentials = vec![("proxy".to_owned(), "gateway-s3cret".to_owned())];
    let world = World::with(Options { credentials, ..Options::default() }, Clock::system()).await;
    let world =
        world.flag("--auth=ada:client-s3cret").flag("--gateway-auth=proxy:gateway-s3cret").flag("--gateway-timeout=2s");
    let replies = [
        Reply::Present,
        Reply::NotSet,
        Reply::Hidden,
        Reply::Unregistered,
        Reply::InvalidJid,
        Reply::internal("cannot open 628123400099@s.whatsapp.net"),
        Reply::RateLimited,
        Reply::LoggedOut,
        Reply::Page(502),
        Reply::Truncated,
        Reply::Reset,
        Reply::Hang,
        Reply::Redirect("http://gateway.example/628123400099".into()),
        Reply::json(200, r#"{"code":"SUCCESS","message":"628123400099","results":{"url":"628123400099"}}"#),
    ];
    let process = Process::start(&world);
    let client = process.client.clone();
    let basic = ("authorization", "Basic YWRhOmNsaWVudC1zM2NyZXQ=");
    for (index, reply) in replies.into_iter().enumerate() {
        let phone = format!("6281234000{index:02}");
        let _ = world.gateway.person(&phone).replies(reply);
        let device = format!("device-of-ada-{index}");
        for target in [format!("/user/avatar?phone={phone}"), format!("/avatars/{phone}@s.whatsapp.net")] {
            let answer = client.get_with(&target, &[basic, ("x-device-id", &device)]).await;
            assert!(!answer.how().is_empty(), "{answer:?}");
        }
    }
    for target in [
        "/user/avatar?phone=x628123400099",
        "/avatars/628123400099@x",
        "/628123400099",
        "/user/avatar?phone=628123400099",
    ] {
        client.get(target).await;
        client.get_with(target, &[("authorization", "Basic YWRhOndyb25nLXMzY3JldA==")]).await;
        client.get_with(target, &[basic, ("x-device-id", "%zz-of-ada")]).await;
    }
    world.gateway.set_credentials(&[("proxy", "another")]);
    client.get_with("/user/avatar?phone=628123400098", &[basic]).await.expect(502, "fwd=miss; detail=credentials");
    let (status, lines) = process.terminate();
    assert!(status.success(), "{status}");

    assert!(lines.iter().any(|line| line.contains("a lookup failed")), "it logs what failed: {lines:#?}");
    for line in &lines {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for secret in [
            "6281234000",
            "of-ada",
            "s3cret",
            "YWRhO",
            "cHJveHk6",
            "http://",
            "https://",
            "oe=",
            "oh=",
            "whatsapp.net/",
        ] {
            assert!(!line.contains(secret), "{secret}: {line}");
        }
    }
}
