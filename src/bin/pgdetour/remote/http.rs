//! One request over HTTP/1.1: every wait has its bound, every answer too.

use std::{error::Error, fmt, fs, path::Path, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, Response, Uri,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{AUTHORIZATION, HOST, HeaderValue, USER_AGENT},
    http::uri::Scheme,
};
use hyper_util::rt::TokioIo;
use pgdetour::{health::Cause, http::Token};
use tokio::{net::TcpStream, time::timeout};

use crate::{exit::Exit, safe::safe, trouble::Trouble};

/// How long a connect may take.
const CONNECT: Duration = Duration::from_secs(5);

/// The longest answer that is read: the status of a thousand servers has a tenth of it.
pub(super) const LONGEST: usize = 16 << 20;

/// Where the endpoints are, and what opens them.
#[derive(Clone)]
pub(super) struct Place {
    host: String,
    port: u16,
    /// The path before that of an endpoint, without the last slash.
    base: String,
    /// Its `Debug` is not derived: it would be in it.
    token: Option<HeaderValue>,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

impl Place {
    pub(super) fn new(url: &str, token_file: Option<&Path>) -> Result<Self, Trouble> {
        let wrong = |why: &str| Trouble::new(Exit::Usage, format_args!("--url {url:?}: {why}"));
        let uri: Uri = url.parse().map_err(|_| wrong("this is no address; write http://127.0.0.1:8430"))?;
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => {}
            Some(scheme) if *scheme == Scheme::HTTPS => {
                return Err(wrong("https is not spoken here; go through a tunnel: ssh -L 8430:127.0.0.1:8430 HOST"));
            }
            _ => return Err(wrong("write it with http:// before it")),
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("a user and a password are of no use; the token is read from --token-file"));
        }
        let base = uri.path().trim_end_matches('/').to_owned();
        let token = token_file.map(token).transpose()?;
        Ok(Self { host: authority.host().to_owned(), port: authority.port_u16().unwrap_or(80), base, token })
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Asks, and waits until an answer begins.
    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        patience: Duration,
    ) -> Result<Response<Incoming>, Trouble> {
        let silent = |_| self.trouble("has not answered in time");
        let answered = timeout(patience, self.send(self.request(method, path)?)).await.map_err(silent)?;
        answered.map_err(|why| self.trouble(&why))
    }

    /// The rest of it.
    pub(super) async fn read(&self, answer: Response<Incoming>, patience: Duration) -> Result<Answer, Trouble> {
        let status = answer.status().as_u16();
        let body = timeout(patience, Limited::new(answer.into_body(), LONGEST).collect()).await;
        let body = body.map_err(|_| self.trouble("has not answered in time"))?;
        let body = body.map_err(|error| self.trouble(&format!("broke off: {}", cause(&*error))))?;
        Ok(Answer { status, body: body.to_bytes() })
    }

    fn request(&self, method: &str, path: &str) -> Result<Request<Empty<Bytes>>, Trouble> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        request = request.header(HOST, format!("{}:{}", self.host, self.port));
        request = request.header(USER_AGENT, concat!("pgdetour/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        request.body(Empty::new()).map_err(|error| Trouble::of(Exit::Usage, "cannot be asked for", &error))
    }

    async fn send(&self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, String> {
        // As an address has it, not as a URL does: without the brackets.
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let connecting = timeout(CONNECT, TcpStream::connect((host, self.port))).await;
        let connected = connecting.map_err(|_| "does not answer: no connection within 5 s".to_owned())?;
        let socket = connected.map_err(|error| format!("cannot be reached: {error}"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| format!("speaks no HTTP: {}", cause(&error)))?;
        // Ends with the answer, or when nobody wants it any more.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|error| format!("speaks no HTTP: {}", cause(&error)))
    }

    fn trouble(&self, why: &str) -> Trouble {
        Trouble::new(Exit::Environment, format_args!("{self} {why}"))
    }
}

pub(super) fn cause(error: &(dyn Error + 'static)) -> String {
    safe(&Cause::of(error).to_string())
}

/// The header that shows the token. The library says what a token is, and that nobody else may read its file.
fn token(file: &Path) -> Result<HeaderValue, Trouble> {
    Token::from_file(file).map_err(|error| Trouble::new(Exit::Usage, error))?;
    let shown = || safe(&file.to_string_lossy());
    let text =
        fs::read_to_string(file).map_err(|error| Trouble::new(Exit::Usage, format_args!("{}: {error}", shown())))?;
    let mut header = HeaderValue::from_str(&format!("Bearer {}", text.trim_end()))
        .map_err(|_| Trouble::new(Exit::Usage, format_args!("{} holds no token", shown())))?;
    header.set_sensitive(true);
    Ok(header)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.base)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_or_refused_in_words() {
        let shown = |url: &str| Place::new(url, None).map(|place| place.to_string()).map_err(|trouble| trouble.why);
        assert_eq!(shown("http://127.0.0.1:8430/").unwrap(), "http://127.0.0.1:8430");
        assert_eq!(shown("http://[::1]:8080/pgdetour/").unwrap(), "http://[::1]:8080/pgdetour");
        for (url, part) in [
            ("https://db:1", "https is not spoken"),
            ("127.0.0.1:8430", "http://"),
            ("http://ann:secret@db/", "--token-file"),
            ("http://", "no address"),
        ] {
            assert!(shown(url).unwrap_err().contains(part), "{url}: {:?}", shown(url));
        }
    }
}
