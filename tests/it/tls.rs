//! A gateway behind `https`, with a certificate of an authority that no system knows.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::app::World;
use crate::support::authority::Authority;
use crate::support::process::Process;

/// Terminates TLS in front of the world's gateway, as a balancer does, with a certificate for these names.
struct Terminator {
    address: SocketAddr,
    running: JoinHandle<()>,
}

impl Terminator {
    async fn new(world: &World, authority: &Authority, names: &[&str]) -> Self {
        let acceptor = authority.signs(names).acceptor();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, gateway) = (listener.local_addr().unwrap(), world.gateway.address());
        let running = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut outside) = acceptor.accept(stream).await else { return };
                    let mut inside = TcpStream::connect(gateway).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        Self { address, running }
    }

    fn url(&self, host: &str) -> String {
        format!("--gateway-url=https://{host}:{}", self.address.port())
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A file beside the store, and the flag that names it.
fn ca_file(world: &World, text: &str) -> String {
    let path = world.store_path().with_file_name("ca.pem");
    std::fs::write(&path, text).unwrap();
    format!("--gateway-ca={}", path.display())
}

#[tokio::test]
async fn a_gateway_is_believed_by_the_word_of_the_authority_that_is_named() {
    let ours = Authority::new("ours");
    for host in ["localhost", "127.0.0.1"] {
        let world = World::new().await;
        world.gateway.person("999001").picture("17");
        let terminator = Terminator::new(&world, &ours, &["localhost", "127.0.0.1"]).await;
        // Others may stand in the same file.
        let flag = ca_file(&world, &(Authority::new("another").pem() + &ours.pem()));
        let world = world.flag(&terminator.url(host)).flag(&flag);
        let app = world.start().await;
        assert_eq!(app.avatar("999001").await.expect(200, "fwd=miss; stored; ttl=").picture_id(), "17");
        app.stop().await;
    }
}

#[tokio::test]
async fn a_gateway_with_another_authoritys_certificate_is_not_believed() {
    let world = World::new().await;
    let terminator = Terminator::new(&world, &Authority::new("theirs"), &["localhost"]).await;
    // Even one of the same name.
    for name in ["ours", "theirs"] {
        let flag = ca_file(&world, &Authority::new(name).pem());
        let config = |world: World| world.flag(&terminator.url("localhost")).flag(&flag);
        let other = config(World::new().await);
        let app = other.start().await;
        let answer = app.avatar("999001").await.expect(502, "fwd=miss; detail=nonsense");
        assert_eq!(answer.code(), "BAD_GATEWAY");
        app.stop().await;
    }
    assert_eq!(world.gateway.lookups(), 0);
}

#[tokio::test]
async fn a_gateway_with_a_certificate_for_another_name_is_not_believed() {
    let world = World::new().await;
    let ours = Authority::new("ours");
    let terminator = Terminator::new(&world, &ours, &["gateway.example"]).await;
    let flag = ca_file(&world, &ours.pem());
    let world = world.flag(&terminator.url("localhost")).flag(&flag);
    let app = world.start().await;
    app.avatar("999001").await.expect(502, "fwd=miss; detail=nonsense");
    assert_eq!(world.gateway.lookups(), 0);
    app.stop().await;
}

#[tokio::test]
async fn a_file_that_holds_no_authority_is_refused_at_the_start() {
    let broken = Authority::new("ours").pem().replace("MII", "AAA");
    for text in ["", "no certificate", &broken] {
        let world = World::new().await;
        let flag = ca_file(&world, text);
        let world = world.flag("--gateway-url=https://localhost:1").flag(&flag);
        let (status, said) = Process::refused(&world);
        assert!(
            status.code() == Some(1) && said.contains("--gateway-ca") && said.contains("ca.pem"),
            "{status}: {said}"
        );
    }
    let world = World::new().await.flag("--gateway-url=https://localhost:1").flag("--gateway-ca=nowhere.pem");
    let (status, said) = Process::refused(&world);
    assert!(status.code() == Some(1) && said.contains("nowhere.pem"), "{status}: {said}");
}
