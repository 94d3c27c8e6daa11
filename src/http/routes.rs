//! Where requests go.

use http::Method;

/// Where a request goes, as far as there is such a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Route<'a> {
    UserAvatar,
    Avatar(&'a str),
    History(&'a str),
    Watch(&'a str),
    Watches,
    Changes,
    Events,
    Webhooks,
    Webhook(&'a str),
    WebhookTest(&'a str),
    WebhookReplay(&'a str),
    GatewayHook,
    Metrics,
    Health,
    Ready,
}

impl<'a> Route<'a> {
    /// Fixed paths match as the gateway's router does: letter case and a trailing slash do not matter.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        const USER_AVATAR: &str = "/user/avatar";
        const FIXED: [(&str, Route<'static>); 9] = [
            (USER_AVATAR, Route::UserAvatar),
            ("/changes", Route::Changes),
            ("/events", Route::Events),
            ("/watches", Route::Watches),
            ("/webhooks", Route::Webhooks),
            ("/hooks/gateway", Route::GatewayHook),
            ("/metrics", Route::Metrics),
            ("/health", Route::Health),
            ("/ready", Route::Ready),
        ];
        // As nearly everybody writes it.
        if path == USER_AVATAR {
            return Some(Route::UserAvatar);
        }
        let bare = path.strip_suffix('/').unwrap_or(path);
        if let Some((_, route)) = FIXED.iter().find(|(fixed, _)| bare.eq_ignore_ascii_case(fixed)) {
            return Some(*route);
        }
        let named = |below: &'a str| {
            let (name, what) = below.split_once('/').map_or((below, None), |(name, what)| (name, Some(what)));
            (!name.is_empty()).then_some((name, what))
        };
        if let Some(below) = bare.strip_prefix("/avatars/") {
            return match named(below)? {
                (jid, None) => Some(Route::Avatar(jid)),
                (jid, Some("changes")) => Some(Route::History(jid)),
                (jid, Some("watch")) => Some(Route::Watch(jid)),
                _ => None,
            };
        }
        match named(bare.strip_prefix("/webhooks/")?)? {
            (id, None) => Some(Route::Webhook(id)),
            (id, Some("test")) => Some(Route::WebhookTest(id)),
            (id, Some("replay")) => Some(Route::WebhookReplay(id)),
            _ => None,
        }
    }

    /// What may be done here.
    pub(super) fn methods(self) -> &'static [Method] {
        match self {
            Route::Avatar(_) => &[Method::GET, Method::HEAD, Method::DELETE],
            Route::Watch(_) => &[Method::PUT, Method::DELETE],
            Route::Webhooks => &[Method::GET, Method::HEAD, Method::POST],
            Route::Webhook(_) => &[Method::GET, Method::HEAD, Method::PATCH, Method::DELETE],
            Route::WebhookTest(_) | Route::WebhookReplay(_) | Route::GatewayHook => &[Method::POST],
            _ => &[Method::GET, Method::HEAD],
        }
    }

    /// The word in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Route::UserAvatar => "/user/avatar",
            Route::Avatar(_) => "/avatars/{jid}",
            Route::History(_) => "/avatars/{jid}/changes",
            Route::Watch(_) => "/avatars/{jid}/watch",
            Route::Watches => "/watches",
            Route::Changes => "/changes",
            Route::Events => "/events",
            Route::Webhooks => "/webhooks",
            Route::Webhook(_) => "/webhooks/{id}",
            Route::WebhookTest(_) => "/webhooks/{id}/test",
            Route::WebhookReplay(_) => "/webhooks/{id}/replay",
            Route::GatewayHook => "/hooks/gateway",
            Route::Metrics => "/metrics",
            Route::Health => "/health",
            Route::Ready => "/ready",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_match_as_the_gateways_do() {
        for path in ["/user/avatar", "/User/Avatar", "/user/avatar/"] {
            assert_eq!(Route::of(path), Some(Route::UserAvatar), "{path}");
        }
        for path in [
            "/user/avatar//",
            "/user/avatars",
            "/user%2Favatar",
            "/avatars/",
            "/avatars/a/b",
            "/",
            "",
            "*",
            "/webhooks/a/b",
            "/webhooks//test",
        ] {
            assert_eq!(Route::of(path), None, "{path}");
        }
        assert_eq!(Route::of("/avatars/1@g.us"), Some(Route::Avatar("1@g.us")));
        assert_eq!(Route::of("/ready/"), Some(Route::Ready));
        assert_eq!(Route::of("/webhooks/"), Some(Route::Webhooks));
        assert_eq!(Route::of("/webhooks/1/test"), Some(Route::WebhookTest("1")));
    }
}
