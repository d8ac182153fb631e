//! RabbitMQ: the handshake of AMQP 0-9-1, as far as an open connection to a virtual host.
//!
//! The protocol: <https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf>, chapters 2.2.4 and 4.2, and its classes and methods
//! <https://www.rabbitmq.com/amqp-0-9-1-reference>; that a refused login is told: <https://www.rabbitmq.com/docs/auth-notification>.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::{
    Service, ServiceError,
    wire::{Door, Wire, quoted},
};
use crate::{
    config::{Endpoint, ServiceKind},
    pool::TlsError,
};

/// Class and method of what is said on a connection.
type Method = (u16, u16);

const START: Method = (10, 10);
const START_OK: Method = (10, 11);
const TUNE: Method = (10, 30);
const TUNE_OK: Method = (10, 31);
const OPEN: Method = (10, 40);
const OPEN_OK: Method = (10, 41);
const CLOSE: Method = (10, 50);
const CLOSE_OK: Method = (10, 51);

/// A frame that holds a method, and the byte at the end of each frame.
const METHOD_FRAME: u8 = 1;
const HEARTBEAT_FRAME: u8 = 8;
const FRAME_END: u8 = 0xCE;

/// The replies of a broker that cannot serve: shutting down, an error of its own, a virtual host that is down.
const FAULTS: [u16; 2] = [320, 541];

/// A RabbitMQ, or what else speaks AMQP 0-9-1: it has to take the login and open the virtual host.
#[derive(Debug, Clone)]
pub struct Amqp {
    name: String,
    door: Door,
}

impl Amqp {
    /// The broker at `amqp://[user[:password]@]host[:port][/vhost]`, or `amqps://` for TLS. Without a user it is `guest` with the
    /// password `guest`; without a virtual host it is `/`.
    ///
    /// # Errors
    ///
    /// When that is no such URL, or TLS cannot be had.
    pub fn new(name: impl Into<String>, url: &str) -> Result<Self, crate::Error> {
        let name = name.into();
        let kind = ServiceKind::in_code(&name, "amqp", url)?;
        Self::at(name.clone(), kind.endpoints()[0].clone()).map_err(|error| crate::Error::service(&name, error))
    }

    pub(super) fn at(name: String, endpoint: Endpoint) -> Result<Self, TlsError> {
        Ok(Self { name, door: Door::new(endpoint)? })
    }

    fn vhost(&self) -> String {
        let path = self.door.endpoint.path.split('?').next().unwrap_or_default();
        let path = path.strip_prefix('/').unwrap_or(path);
        if path.is_empty() { "/".to_owned() } else { percent_decode_str(path).decode_utf8_lossy().into_owned() }
    }
}

impl Service for Amqp {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> String {
        self.door.endpoint.to_string()
    }

    fn kind(&self) -> &str {
        "amqp"
    }

    async fn ping(&self, _: Duration) -> Result<(), ServiceError> {
        let mut wire = self.door.open().await?;
        wire.send(b"AMQP\x00\x00\x09\x01").await?;
        expect(&mut wire, START).await?;
        let user = self.door.endpoint.user.as_deref().unwrap_or("guest");
        let password = self.door.endpoint.password().unwrap_or("guest");
        wire.send(&frame(START_OK, &start_ok(user, password))).await?;
        let limits = expect(&mut wire, TUNE).await?;
        // What it offers is fine but for heartbeats: the last of the three numbers.
        let limits = limits.get(..6).ok_or_else(garbled)?;
        wire.send(&frame(TUNE_OK, &[limits, &[0, 0]].concat())).await?;
        wire.send(&frame(OPEN, &[short(&self.vhost()).as_slice(), &[0, 0]].concat())).await?;
        expect(&mut wire, OPEN_OK).await?;
        // So that its log holds no warning of a client that vanished.
        let goodbye = [&200u16.to_be_bytes()[..], &short("the ping is over"), &[0; 4]].concat();
        wire.send(&frame(CLOSE, &goodbye)).await?;
        expect(&mut wire, CLOSE_OK).await.map(drop)
    }
}

/// Reads until this method has come; its arguments.
async fn expect(wire: &mut Wire, wanted: Method) -> Result<Vec<u8>, ServiceError> {
    loop {
        let header = wire.exactly(7).await?;
        if header.starts_with(b"AMQP") {
            return Err(ServiceError::failed("speaks another version of AMQP"));
        }
        let size = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
        if ![METHOD_FRAME, HEARTBEAT_FRAME].contains(&header[0]) || header[1..3] != [0, 0] {
            return Err(garbled());
        }
        let mut payload = wire.exactly(usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1)).await?;
        if payload.pop() != Some(FRAME_END) {
            return Err(garbled());
        }
        if header[0] == HEARTBEAT_FRAME {
            continue;
        }
        let [c, l, m, t, ..] = payload[..] else { return Err(garbled()) };
        let method = (u16::from_be_bytes([c, l]), u16::from_be_bytes([m, t]));
        let arguments = payload.split_off(4);
        return match method {
            _ if method == wanted => Ok(arguments),
            CLOSE => Err(closed(&arguments)),
            _ => Err(garbled()),
        };
    }
}

/// Why the broker closes the connection: a code, and words with their length before them.
fn closed(arguments: &[u8]) -> ServiceError {
    let [high, low, length, text @ ..] = arguments else { return garbled() };
    let code = u16::from_be_bytes([*high, *low]);
    let text = String::from_utf8_lossy(text.get(..usize::from(*length)).unwrap_or(text));
    let told = quoted(&format!("{code} {text}"));
    if FAULTS.contains(&code) { ServiceError::failed(told) } else { ServiceError::inconclusive(told) }
}

fn garbled() -> ServiceError {
    ServiceError::failed("its answer makes no sense: is this an AMQP broker?")
}

/// Who we are, that we want to be told of a refused login, and the login.
fn start_ok(user: &str, password: &str) -> Vec<u8> {
    let told = [short("authentication_failure_close").as_slice(), b"t\x01"].concat();
    let product = [short("product").as_slice(), b"S", &long(b"pgdetour")].concat();
    let capabilities = [short("capabilities").as_slice(), b"F", &long(&told)].concat();
    let response = [b"\0", user.as_bytes(), b"\0", password.as_bytes()].concat();
    [long(&[product, capabilities].concat()), short("PLAIN"), long(&response), short("en_US")].concat()
}

fn frame(method: Method, arguments: &[u8]) -> Vec<u8> {
    let payload = [&method.0.to_be_bytes()[..], &method.1.to_be_bytes(), arguments].concat();
    [&[METHOD_FRAME, 0, 0][..], &long(&payload), &[FRAME_END]].concat()
}

/// With its length in one byte before it; what is too long for that is cut.
fn short(text: &str) -> Vec<u8> {
    let bytes = &text.as_bytes()[..text.len().min(255)];
    [&[u8::try_from(bytes.len()).unwrap_or(u8::MAX)][..], bytes].concat()
}

/// With its length in four bytes before it.
fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes()[..], bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_host_is_the_path_decoded() {
        let of = |url: &str| Amqp::new("x", url).unwrap().vhost();
        assert_eq!(["amqp://h", "amqp://h/", "amqp://h/%2F"].map(of), ["/"; 3]);
        assert_eq!(of("amqp://h:1/shop?x=1"), "shop");
    }

    #[test]
    fn a_broker_that_shuts_down_speaks_against_itself_and_a_refused_login_does_not() {
        let close = |code: u16, text: &str| closed(&[&code.to_be_bytes()[..], &short(text), &[0; 4]].concat());
        assert!(close(320, "CONNECTION_FORCED - broker forced connection closure").is_conclusive());
        assert!(!close(403, "ACCESS_REFUSED - Login was refused").is_conclusive());
        assert_eq!(close(403, "no").to_string(), "403 no");
        assert!(closed(&[1]).is_conclusive() && closed(&[1, 147, 9, b'x']).to_string() == "403 x");
    }
}
