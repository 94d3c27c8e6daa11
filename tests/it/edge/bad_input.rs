//! Bad input gets a clear error in the gateway's envelope, and harms nothing.

use http::Method;

use crate::support::app::World;

const SERVERS: &str = "phone: the part behind @ must be s.whatsapp.net, g.us, lid, newsletter, bot, broadcast or c.us.";
const DIGITS: &str = "phone: must be digits, with an optional leading + and an optional @server.";

#[tokio::test]
async fn is_refused_by_name_and_the_gateway_never_hears_of_it() {
    let world = World::new().await;
    let app = world.start().await;
    let long = "9".repeat(8000);
    let rubbish = format!("?{}", "%F0%9F%92%A9&=;".repeat(500));
    for (query, message) in [
        ("", "phone: cannot be blank."),
        ("?", "phone: cannot be blank."),
        ("?phone=", "phone: cannot be blank."),
        ("?phone=+", "phone: cannot be blank."),
        ("?phone=%20%20", "phone: cannot be blank."),
        ("?Phone=1", "phone: cannot be blank."),
        ("?phone=999001@example.org", SERVERS),
        ("?phone=999001@", SERVERS),
        ("?phone=999001@g.us@g.us", SERVERS),
        ("?phone=ada", DIGITS),
        ("?phone=../../etc/passwd", DIGITS),
        ("?phone=%00", DIGITS),
        ("?phone=99900%0D%0AX-Evil:1", DIGITS),
        ("?phone=%D9%A3", DIGITS),
        ("?phone=1%27%20OR%201=1--", DIGITS),
        (&format!("?phone={long}"), "phone: is longer than any WhatsApp address."),
        ("?phone=%", "phone: is not valid percent-encoding."),
        ("?phone=%4", "phone: is not valid percent-encoding."),
        ("?phone=%zz", "phone: is not valid percent-encoding."),
        ("?phone=%FF%FE", "phone: is not valid percent-encoding."),
        ("?%zz=1&phone=1", "the query is not valid percent-encoding."),
        ("?phone=1&phone=2", "phone: must be given once."),
        ("?phone=1&is_preview=yes", "is_preview: must be true or false."),
        ("?phone=1&is_preview=tRuE", "is_preview: must be true or false."),
        ("?phone=1&is_preview=0&is_preview=0", "is_preview: must be given once."),
        ("?phone=1&is_community=2", "is_community: must be true or false."),
        ("?phone=1&device_id=a&device_id=b", "device_id: must be given once."),
        ("?phone=1&device_id=%0A", "device_id: must not contain control characters."),
        (&format!("?phone=1&device_id={}", "d".repeat(257)), "device_id: must be at most 256 bytes."),
        (&format!("?phone=1&device_id={}", "%C3%A9".repeat(129)), "device_id: must be at most 256 bytes."),
        (&rubbish, "phone: cannot be blank."),
    ] {
        let answer = app.get(&format!("/user/avatar{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        let expected = serde_json::json!({"code": "VALIDATION_ERROR", "message": message, "results": null});
        assert_eq!(answer.json(), expected, "{query}");
        assert_eq!((answer.header("content-type"), answer.header("cache-control")), ("application/json", "no-store"));
    }
    assert_eq!(world.gateway.lookups(), 0);
    app.avatar("999001").await.expect(200, "fwd=miss; stored");
    app.stop().await;
}

#[tokio::test]
async fn is_refused_in_the_device_header_too() {
    let world = World::new().await;
    let app = world.start().await;
    let long = "d".repeat(257);
    for (values, message) in [
        (vec!["%zz"], "X-Device-Id: is not valid percent-encoding."),
        (vec!["%FF"], "X-Device-Id: is not valid percent-encoding."),
        (vec!["%0D%0AX-Evil:%201"], "device_id: must not contain control characters."),
        (vec![&long], "device_id: must be at most 256 bytes."),
        (vec!["a", "b"], "X-Device-Id: must be given once."),
    ] {
        let headers: Vec<(&str, &str)> = values.iter().map(|&value| ("x-device-id", value)).collect();
        for target in ["/user/avatar?phone=999001", "/avatars/999001"] {
            let answer = app.get_with(target, &headers).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "VALIDATION_ERROR"), "{values:?}");
            assert_eq!((answer.message().as_str(), answer.json()["results"].is_null()), (message, true));
        }
    }
    assert_eq!(world.gateway.lookups(), 0);
    app.stop().await;
}

#[tokio::test]
async fn is_refused_in_the_native_path_too() {
    let world = World::new().await;
    let app = world.start().await;
    for path in ["%20", "ada", "1@example.org", "%zz", "%FF", "1@g.us%2Fimage", "1?preview=yes", "1?community=x"] {
        let answer = app.get(&format!("/avatars/{path}")).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "VALIDATION_ERROR"), "{path}: {answer:?}");
        assert!(answer.json()["results"].is_null());
    }
    assert_eq!(world.gateway.lookups(), 0);
    app.stop().await;
}

#[tokio::test]
async fn what_is_too_long_is_refused_and_the_connection_serves_the_next() {
    let world = World::new().await;
    let app = world.start().await;
    let answer = app.get(&format!("/user/avatar?phone=999001&x={}", "y".repeat(8192))).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (414, "URI_TOO_LONG"));
    assert!(answer.json()["results"].is_null());
    app.get(&format!("/user/avatar?phone=999001&x={}", "y".repeat(8000))).await.expect(200, "fwd=miss");

    let many: Vec<(String, String)> = (0..150).map(|index| (format!("x-header-{index}"), "1".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let answer = app.send(Method::GET, "/user/avatar?phone=999001", &many).await.unwrap();
    assert_eq!(answer.status, 431);
    app.avatar("999001").await.expect(200, "hit");
    app.stop().await;
}
