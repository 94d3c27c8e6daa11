//! A store that is chosen by URL: what is shared, and what is said where it cannot be.

use avatar_proxy::VERSION;

use super::ADA;
use crate::support::app::World;
use crate::support::process::Process;
use crate::support::redis::Redis;

#[tokio::test]
async fn what_one_replica_has_looked_up_the_others_answer_with() {
    let server = Redis::start();
    let world = World::new().await.on(&server);
    let apps = world.start_many(3).await;
    let first = apps[0].avatar(ADA).await.expect(200, "fwd=miss; stored");
    for app in &apps {
        let answer = app.avatar(ADA).await.expect(200, "hit; ttl=");
        assert_eq!((&answer.body, &answer.headers["etag"]), (&first.body, &first.headers["etag"]));
    }
    assert_eq!(world.gateway.lookups(), 1);
    for app in apps {
        app.stop().await;
    }
    let app = world.start().await;
    app.avatar(ADA).await.expect(200, "hit; ttl=");
    app.stop().await;
}

#[tokio::test]
async fn a_redis_that_cannot_be_used_ends_the_start_with_a_sentence() {
    let server = Redis::with(&["--requirepass s3cret"]);
    let port = server.port();
    let world = World::new().await;
    let said = |world: &World| {
        let (status, said) = Process::refused(world);
        assert_eq!((status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.starts_with("avatar-proxy: ") && !said.contains("s3cret") && !said.contains("guess"), "{said}");
        said
    };
    let world = world.flag(&format!("--store=redis://:guess@127.0.0.1:{port}"));
    assert!(said(&world).contains("does not accept this user and password"));
    let world = world.flag(&format!("--store=redis://:s3cret@127.0.0.1:{port}/99"));
    assert!(said(&world).contains(&format!("redis://127.0.0.1:{port}/99 cannot be used")));
    let world = world.flag(&format!("--store=rediss://:s3cret@127.0.0.1:{port}"));
    assert!(said(&world).contains("rediss://127.0.0.1"));
    let world = world.flag(&format!("--store=redis+sentinel://:s3cret@127.0.0.1:{port}/main"));
    assert!(said(&world).contains("redis+sentinel://127.0.0.1"));
    let url = format!("redis://:s3cret@127.0.0.1:{port}");
    let mut raw = redis::Client::open(url.as_str()).unwrap().get_connection().unwrap();
    let world = world.flag(&format!("--store={url}"));
    for format in ["99", "1"] {
        redis::cmd("HSET").arg("{avatar-proxy}:meta").arg(&["format", format]).exec(&mut raw).unwrap();
        assert!(said(&world).contains(&format!("has format {format}, and this program knows")));
    }
    redis::cmd("SET").arg("{avatar-proxy}:meta").arg("diary").exec(&mut raw).unwrap();
    assert!(said(&world).contains("is another program's"));
    drop(server);
    assert!(said(&world).contains("cannot be reached"));
}

#[tokio::test]
async fn the_password_of_a_redis_is_in_no_log() {
    let server = Redis::with(&["--requirepass s3cret"]);
    let world = World::new().await.flag(&format!("--store=redis://:s3cret@127.0.0.1:{}", server.port()));
    let process = Process::start(&world);
    process.client.avatar(ADA).await.expect(200, "fwd=miss; stored");
    // The log of a store that fails, too.
    drop(server);
    process.client.avatar("999002").await.expect(200, "fwd=miss; ttl=");
    let log = process.kill().concat();
    assert!(log.contains(VERSION) && log.contains("the store fails") && !log.contains("s3cret"), "{log}");
}
