//! The status page: one document with its style and its script in it, allowed by their digests and nothing else.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use super::site::Site;

const FRAME: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The page and what a browser may do with it.
pub(super) struct Page {
    text: String,
    policy: HeaderValue,
}

impl Page {
    pub(super) fn new() -> Self {
        let (style, script) = (tight(&lean(STYLE)), lean(SCRIPT));
        let text = lean(FRAME).replacen("/*style*/", &style, 1).replacen("/*script*/", &script, 1);
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
            base64(&Sha256::digest(&script)),
            base64(&Sha256::digest(&style)),
        );
        let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self { text, policy }
    }
}

/// Without indentation and lines of comment, which only its author needs. No text of the page spans lines.
fn lean(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Without the spaces around what separates rules and declarations.
fn tight(style: &str) -> String {
    let spaced = [
        (" {", "{"),
        ("{ ", "{"),
        (" }", "}"),
        ("} ", "}"),
        ("; ", ";"),
        (": ", ":"),
        (", ", ","),
        (";}", "}"),
        ("\n", ""),
    ];
    spaced.iter().fold(style.to_owned(), |style, (from, to)| style.replace(from, to))
}

/// Shows it. It holds no data: that comes over `/events`, to whom may see it.
pub(super) async fn show(State(site): State<Arc<Site>>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, site.page.policy.clone()),
    ];
    (headers, site.page.text.clone()).into_response()
}

/// The alphabet of RFC 4648, section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let bits = (0..3).fold(0_usize, |bits, at| bits << 8 | usize::from(three.get(at).copied().unwrap_or(0)));
        let letter = |at: usize| match at <= three.len() {
            true => char::from(LETTERS[bits >> (18 - 6 * at) & 63]),
            false => '=',
        };
        [letter(0), letter(1), letter(2), letter(3)]
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_spelt_as_the_policy_wants_them() {
        let spelt = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (text, expected) in spelt {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn the_page_is_whole_and_takes_nothing_from_outside() {
        let page = Page::new();
        assert!(page.text.contains(&tight(&lean(STYLE))) && page.text.contains(&lean(SCRIPT)));
        assert!(page.text.len() <= 34_000, "{} bytes", page.text.len());
        // The name space of SVG is a name and no address.
        let addresses = page.text.replace("http://www.w3.org/2000/svg", "");
        assert!(!addresses.contains("http:") && !addresses.contains("https:") && !addresses.contains("src="));
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style="] {
            assert!(!page.text.contains(way), "{way}");
        }
    }
}
