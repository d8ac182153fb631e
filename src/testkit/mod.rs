//! Real PostgreSQL servers and a faulty network, for failover tests.
