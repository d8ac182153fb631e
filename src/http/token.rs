//! The bearer token: what it may look like, where it is read, and how one that is presented is compared.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

use axum::http::{HeaderMap, header};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// 24 characters that were drawn by chance are not found by trying: `openssl rand -hex 32` makes more.
const LEAST: usize = 24;

/// What a request can carry in a header; more is no token.
const MOST: usize = 512;

/// What lets its bearer see the details and act. Its `Debug` does not show it.
#[derive(Clone)]
pub struct Token {
    /// Compared in place of the token itself: always of the same length, so that a comparison tells nothing of it.
    digest: [u8; 32],
}

impl Token {
    /// A token from text.
    ///
    /// # Errors
    ///
    /// When it has fewer than 24 or more than 512 characters, or some that a header cannot carry.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        if !(LEAST..=MOST).contains(&text.len()) {
            return Err(TokenError::Length(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Character);
        }
        Ok(Self { digest: Sha256::digest(text).into() })
    }

    /// The token in a file: its text without the line's end.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, when others may read it too, and as [`Token::new`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TokenError> {
        let shown = || path.as_ref().display().to_string();
        let unread = |error| TokenError::File { path: shown(), error };
        let file = File::open(path.as_ref()).map_err(unread)?;
        if open_to_others(&file).map_err(unread)? {
            return Err(TokenError::Open(shown()));
        }
        let mut text = String::new();
        // One more than fits, so that what is too long is seen to be.
        file.take(MOST as u64 + 3).read_to_string(&mut text).map_err(unread)?;
        let text = SecretString::from(text);
        Self::new(text.expose_secret().trim_end_matches(['\n', '\r']))
    }

    /// Whether a request bears it.
    pub(super) fn is_borne_by(&self, headers: &HeaderMap) -> bool {
        presented(headers).is_some_and(|presented| {
            let digest: [u8; 32] = Sha256::digest(presented).into();
            self.digest.ct_eq(&digest).into()
        })
    }
}

/// The token that a request presents, if it presents one.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && token.len() <= MOST).then_some(token)
}

#[cfg(unix)]
fn open_to_others(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    Ok(file.metadata()?.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn open_to_others(_: &File) -> io::Result<bool> {
    Ok(false)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why something is no token.
#[derive(Debug)]
#[non_exhaustive]
pub enum TokenError {
    /// Its length is not 24 to 512 characters, but this.
    Length(usize),
    /// It has characters other than the printable ones of ASCII.
    Character,
    /// Its file cannot be read.
    File {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// Every user may read its file.
    Open(String),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(length) => write!(
                f,
                "a token has {LEAST} to {MOST} characters, and this one {length}: `openssl rand -hex 32` makes one"
            ),
            Self::Character => f.write_str("a token has letters, digits and signs of ASCII only, without a space"),
            Self::File { path, error } => write!(f, "the token file {path} cannot be read: {error}"),
            Self::Open(path) => write!(f, "the token file {path} can be read by every user: run `chmod 600 {path}`"),
        }
    }
}

impl std::error::Error for TokenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { error, .. } => Some(error),
            Self::Length(_) | Self::Character | Self::Open(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a-token-of-enough-characters";

    fn bearing(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn only_the_whole_token_behind_the_word_bearer_is_it() {
        let token = Token::new(TEXT).unwrap();
        assert!(token.is_borne_by(&bearing(&format!("Bearer {TEXT}"))));
        assert!(token.is_borne_by(&bearing(&format!("bearer {TEXT}"))));
        let others = [
            TEXT.to_owned(),
            format!("Basic {TEXT}"),
            format!("Bearer {}", &TEXT[..TEXT.len() - 1]),
            format!("Bearer {TEXT}x"),
            format!("Bearer  {TEXT}"),
            "Bearer ".to_owned(),
            "Bear".to_owned(),
        ];
        for other in others {
            assert!(!token.is_borne_by(&bearing(&other)), "{other}");
        }
        assert!(!token.is_borne_by(&HeaderMap::new()));
    }

    #[test]
    fn what_is_short_or_cannot_be_in_a_header_is_no_token() {
        assert!(matches!(Token::new("short"), Err(TokenError::Length(5))));
        assert!(matches!(Token::new(&"x".repeat(513)), Err(TokenError::Length(513))));
        assert!(matches!(Token::new("a token with spaces in between"), Err(TokenError::Character)));
        assert!(matches!(Token::new("a-token-with\r\nInjected: header"), Err(TokenError::Character)));
    }

    #[test]
    fn no_debug_shows_it() {
        let token = Token::new(TEXT).unwrap();
        let shown = format!("{token:?} {:?}", crate::http::HttpOptions::default().token(token.clone()));
        assert!(!shown.contains(TEXT), "{shown}");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_holds_no_token() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{TEXT}\n")).unwrap();
        let right = |mode| {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            Token::from_file(file.path())
        };
        assert!(matches!(right(0o644), Err(TokenError::Open(_))));
        assert!(right(0o600).unwrap().is_borne_by(&bearing(&format!("Bearer {TEXT}"))));
    }
}
