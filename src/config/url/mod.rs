//! Where does a libpq URL or a `key=value` text point to?
//!
//! Our own pass, since the driver refuses `sslmode=verify-full` and much else that libpq takes.
//! No error here quotes the text: a piece of it may be a piece of the password. Only names of known parameters are told.

mod keys;
mod passfile;
mod split;
mod target;

pub(super) use self::{
    passfile::{Login, find as find_in_passfile},
    target::{Draft, Surroundings, build},
};
