use super::*;

#[test]
fn variables_are_named_after_flags() {
    let url = flags().iter().find(|flag| flag.name == "--gateway-url").unwrap();
    assert_eq!(url.variable(), "AVATAR_PROXY_GATEWAY_URL");
}

#[test]
fn every_flag_is_there_once_under_one_run_of_its_heading() {
    let mut headings: Vec<_> = flags().iter().map(|flag| flag.heading.as_str()).collect();
    headings.dedup();
    assert_eq!(
        headings,
        ["Listening", "Gateway", "Budget", "Freshness", "Changes", "Store and memory", "Logs and metrics", "Checking"],
        "help would print a heading twice"
    );
    for (place, flag) in flags().iter().enumerate() {
        assert!(flags()[place + 1..].iter().all(|other| other.name != flag.name), "{}", flag.name);
        assert!(!flag.help.ends_with('.'), "{}: help goes on with the default", flag.name);
    }
}
