//! What every request passes: the name it asks for on its way in, headers that keep browsers careful on its way out.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{answer::Refusal, site::Site};

/// Where the headers of an answer do not say otherwise.
const CAREFUL: [(HeaderName, &str); 8] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
];

/// Refuses what asks for another host, and makes every answer careful.
pub(super) async fn guard(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let mut response =
        if is_welcome(&site, &request) { next.run(request).await } else { Refusal::Misdirected.into_response() };
    for (name, value) in CAREFUL {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Whether it asks for a host that is served here. A probe of the process may ask for whatever it likes.
fn is_welcome(site: &Site, request: &Request) -> bool {
    let named = || host(request.uri(), request.headers()).is_some_and(|name| site.options.hosts.contains(&name));
    site.options.hosts.is_empty() || request.uri().path().ends_with("/livez") || named()
}

/// The host a request asks for, without its port: HTTP/1 has it in a header, HTTP/2 in the address.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    authority(uri, headers).map(|authority| authority.host().to_ascii_lowercase())
}

fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse().ok());
    named.or_else(|| uri.authority().cloned())
}

/// Whether a browser says that another origin's page sends this. Programs say nothing of the kind and are no browsers.
pub(super) fn is_cross_site(uri: &Uri, headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let elsewhere = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    let foreign = headers.get(header::ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
        let origin = origin.and_then(|origin| origin.authority().cloned());
        // `null` has no authority, and is nobody's own.
        origin.is_none() || origin != authority(uri, headers)
    });
    elsewhere || foreign
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn crosses(pairs: &[(&'static str, &'static str)]) -> bool {
        is_cross_site(&Uri::from_static("/actions/drain/replica"), &headers(pairs))
    }

    #[test]
    fn a_page_of_another_origin_is_told_by_what_the_browser_says_of_it() {
        assert!(crosses(&[("host", "db:8430"), ("origin", "http://evil.example")]));
        assert!(crosses(&[("host", "db:8430"), ("origin", "http://db:8431")]));
        assert!(crosses(&[("host", "db:8430"), ("origin", "null")]));
        assert!(crosses(&[("host", "db:8430"), ("sec-fetch-site", "cross-site")]));
        assert!(crosses(&[("host", "db:8430"), ("sec-fetch-site", "same-site")]));
        assert!(!crosses(&[("host", "db:8430"), ("origin", "http://db:8430"), ("sec-fetch-site", "same-origin")]));
        assert!(!crosses(&[("host", "db:8430")]));
    }

    #[test]
    fn a_host_is_compared_without_its_port_and_in_small_letters() {
        let asked = |name: &'static str| host(&Uri::from_static("/"), &headers(&[("host", name)]));
        assert_eq!(asked("LocalHost:8430").as_deref(), Some("localhost"));
        assert_eq!(asked("[::1]:8430").as_deref(), Some("[::1]"));
        assert_eq!(asked("127.0.0.1").as_deref(), Some("127.0.0.1"));
        assert_eq!(asked("local host"), None);
    }
}
