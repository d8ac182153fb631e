//! The ready-made services against the real servers: up, stopped, frozen, restarted, and with a wrong password.
#![cfg(feature = "deadpool")]

mod harness;
mod hostile;
mod http;
mod jobs;
mod many;
mod memcached;
mod rabbitmq;
mod redis;
mod reload;
