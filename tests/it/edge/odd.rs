//! Odd but valid answers of gateways, as they occur in the wild, come out as the one form that clients know.

use avatar_proxy::demo::{Address, Form, Options, Reply, Shape};

use crate::support::client::Client;
use crate::support::hand::{self, NOW};

const FORMS: [Form; 9] = [
    Form::Reordered,
    Form::Extended,
    Form::NumericId,
    Form::Pretty,
    Form::WithoutUrl,
    Form::NullUrl,
    Form::EmptyId,
    Form::NullResults,
    Form::WithoutResults,
];

#[tokio::test]
async fn every_way_of_writing_a_success_becomes_the_usual_one() {
    let world = hand::world(Options::default()).await;
    let (app, gateway) = (world.start().await, Client::new(world.gateway.address()));
    for (index, form) in FORMS.into_iter().enumerate() {
        let phone = format!("99900{index}");
        let person = world.gateway.person(&phone).picture("17").address(Address::Until(NOW + hand::TEN_DAYS));
        let mut usual = gateway.avatar(&phone).await.json();
        person.replies(Reply::PresentAs(form));
        let answer = app.avatar(&phone).await.expect(200, "fwd=miss; stored; ttl=");
        let again = app.avatar(&phone).await.expect(200, "hit; ttl=");
        let missing: &[&str] = match form {
            Form::WithoutUrl | Form::NullUrl => &["url"],
            Form::EmptyId => &["id"],
            Form::NullResults | Form::WithoutResults => &["url", "id"],
            _ => &[],
        };
        for field in missing {
            usual["results"][field] = "".into();
        }
        assert_eq!(answer.json(), usual, "{form:?}");
        assert!(answer.text().starts_with(r#"{"code":"SUCCESS","message":"Success get avatar","results":{"url":""#));
        assert_eq!((again.body, person.lookups()), (answer.body, 2), "one of ours, one of the test's: {form:?}");
    }
    app.stop().await;
}

#[tokio::test]
async fn every_shape_of_a_signed_url_is_handed_on_as_it_is_and_its_expiry_is_read() {
    let world = hand::world(Options::default()).await;
    let (app, gateway) = (world.start().await, Client::new(world.gateway.address()));
    for (index, shape) in
        [Shape::Long, Shape::Short, Shape::OhOe, Shape::OeOh, Shape::Lowercase].into_iter().enumerate()
    {
        for preview in [false, true] {
            let phone = format!("99900{index}");
            let _ = world.gateway.person(&phone).shape(shape).address(Address::Until(NOW + 1000 * hand::SECOND));
            let target = format!("/user/avatar?phone={phone}&is_preview={preview}");
            let (real, ours) =
                (gateway.get(&target).await, app.get(&target).await.expect(200, "fwd=miss; stored; ttl=998"));
            assert_eq!(ours.text(), real.text(), "{shape:?}");
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn every_host_and_path_seen_in_the_wild_is_handed_on_as_it_is() {
    let world = hand::world(Options::default()).await;
    let app = world.start().await;
    for (index, url) in [
        "https://pps.whatsapp.net/v/t61.24694-24/181358562_385581386633509_6230178822944778044_n.jpg?ccb=11-4&oh=df36&oe=7B49D200",
        "https://pps.whatsapp.net/v/t61.24694-24/s96x96/1_2_3_n.jpg?stp=dst-jpg_s96x96_tt6&ccb=11-4&oh=df36&oe=7B49D200&_nc_sid=5e03e0&_nc_cat=100",
        "https://pps.whatsapp.net/v/t61.24694-24/1_2_3_n.jpg?oe=7b49d200&oh=01_Q5Aa1",
        "https://media-ber1-1.cdn.whatsapp.net/v/t61.24694-24/1_2_3_n.jpg?oh=df36&oe=7B49D200",
        "https://mmg.whatsapp.net/m1/v/t24/An-_abcDEF?ccb=9-4&oh=df36&oe=7B49D200",
        "https://pps.whatsapp.net/v/t61.24694-24/1_2_3_n.jpg",
        "http://localhost:9000/wa/1.jpg?a=%3Cb%3E&oe=7B49D200#top",
        "",
    ]
    .into_iter()
    .enumerate()
    {
        let phone = format!("99900{index}");
        let _ = world.gateway.person(&phone).address(Address::Text(url.to_owned()));
        for how in ["fwd=miss; stored; ttl=", "hit; ttl="] {
            let answer = app.avatar(&phone).await.expect(200, how);
            assert_eq!((answer.url().as_str(), answer.text().contains('&')), (url, false));
        }
    }
    app.stop().await;
}
