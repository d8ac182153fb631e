//! Does policy decide as its tables and its numbers say, and does what all threads share survive every order of them?

mod ask;
mod backoff;
mod breaker;
mod budget;
mod calls;
mod latency;
mod table;
mod threads;
