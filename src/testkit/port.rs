//! A loopback port that stays ours while its server is dead.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use super::TestkitError;

/// A TCP port of 127.0.0.1 that no other test kit, in this process or another, takes while this value lives.
///
/// A killed server leaves its port unbound, and it must find it free when it comes back. So the number lies outside the range from
/// which the system gives ports to outgoing connections, and the UDP port of the same number is held as the sign that it is taken.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    _sign: UdpSocket,
}

impl Port {
    pub(super) fn reserve() -> Result<Self, TestkitError> {
        let outgoing = first_outgoing_port();
        let range = if outgoing > 12_000 { 10_000..outgoing } else { 10_000..u16::MAX };
        for _ in 0..1_000 {
            let number = fastrand::u16(range.clone());
            let Ok(sign) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _sign: sign });
            }
        }
        Err(TestkitError::new(format!("none of 1000 ports of 127.0.0.1 in {range:?} is free")))
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }
}

/// Where outgoing connections begin to take their ports: Linux tells, elsewhere RFC 6335's dynamic range is usual.
fn first_outgoing_port() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(49_152)
}
