//! Statements over a session: each is sqlx's own, and ends when its server goes down.

use ::sqlx::{
    Describe, Either, Error, Execute, Executor, Postgres, SqlStr,
    postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use futures_core::{future::BoxFuture, stream::BoxStream};

use super::{SqlxSession, text::Read};

impl<'c> Executor<'c> for &'c mut SqlxSession {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (query, (connection, life)) = (Read::of(query), self.parts());
        if query.may_open_a_transaction() {
            life.doubt();
        }
        life.watch_all(connection.fetch_many(query))
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (query, (connection, life)) = (Read::of(query), self.parts());
        if query.may_open_a_transaction() {
            life.doubt();
        }
        life.watch(connection.fetch_optional(query))
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        let (connection, life) = self.parts();
        life.watch(connection.prepare_with(sql, parameters))
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        let (connection, life) = self.parts();
        life.watch(connection.describe(sql))
    }
}
