//! One session of a simulated server: it logs in, executes what it is sent, and can end at any moment.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use crate::{
    net::{Link, Plug},
    node::{Admission, Control, Death, LAG, Node, Trap},
    record::Record,
    sql::{Statement, What},
    time,
    wire::{Message, Opening, Reply, Report, error, fatal, opening},
};

/// More pings than any run can ask for.
const TOO_MANY: usize = 5000;

const FULL: Report = fatal("53300", "sorry, too many clients already");
const CANCELLED: Report = error("57014", "canceling statement due to user request");

struct Session {
    number: u32,
    node: Arc<Node>,
    control: Arc<Control>,
    plug: Plug,
    started: Duration,
    /// When the last statement of a lease came to its end.
    finished: Duration,
    transaction: Transaction,
    /// When the last transaction was opened, and when it was over.
    opened: Duration,
    over: Duration,
    /// Written in the transaction that is open, and its number.
    pending: Vec<u64>,
    xid: Option<u64>,
    /// The key it has claimed, and the answer for it.
    key: Option<(String, Option<String>)>,
    /// The lease whose statements it executes.
    lease: Option<u64>,
    prepared: BTreeMap<String, Statement>,
    portals: BTreeMap<String, (Statement, Vec<String>)>,
    /// What comes before the next Sync is left out: something has failed.
    skipping: bool,
    told_recovery: bool,
    reply: Reply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transaction {
    None = b'I' as isize,
    Open = b'T' as isize,
    Failed = b'E' as isize,
}

/// Why a session goes on no further.
enum Stop {
    /// Its client is gone.
    Left,
    /// It was told something that ends it.
    Fatal(Report),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Left
    }
}

/// Starts a session over a link that was just made.
pub(crate) fn spawn(node: &Arc<Node>, link: Arc<Link>, plug: Plug) {
    let (number, control) = node.register(link);
    let (node, started, told_recovery) = (Arc::clone(node), node.record.at(), node.state().in_recovery);
    crate::world::spawn(&node.record.clone(), async move {
        let mut session = Session {
            number,
            control: Arc::clone(&control),
            plug,
            started,
            finished: started,
            transaction: Transaction::None,
            opened: started,
            over: started,
            pending: Vec::new(),
            xid: None,
            key: None,
            lease: None,
            prepared: BTreeMap::new(),
            portals: BTreeMap::new(),
            skipping: false,
            told_recovery,
            reply: Reply::default(),
            node,
        };
        let death = tokio::select! {
            biased;
            death = control.ended() => death,
            stop = session.serve() => match stop {
                Err(Stop::Fatal(report)) => Death::Told(b'E', report),
                Ok(()) | Err(Stop::Left) => Death::Silent,
            },
        };
        session.node.forget(number);
        session.close_transaction(false);
        match death {
            Death::Silent => {}
            Death::Reset => control.link.reset(),
            Death::Told(tag, report) => {
                session.reply.0.clear();
                // An error says that nobody listens.
                let _ = session.reply.report(tag, report).send(&mut session.plug).await;
            }
        }
    });
}

impl Session {
    async fn serve(&mut self) -> Result<(), Stop> {
        if let Opening::Cancel { session } = opening(&mut self.plug).await? {
            self.node.thawed(&self.control).await;
            self.node.session(session).into_iter().for_each(|session| session.interrupt(CANCELLED));
            return Ok(());
        }
        self.node.thawed(&self.control).await;
        let (admission, room) = {
            let state = self.node.state();
            (state.admission, state.room)
        };
        match admission {
            Admission::Open if self.node.sessions().len() > room => return Err(Stop::Fatal(FULL)),
            Admission::Open => {}
            Admission::Refused(report) => return Err(Stop::Fatal(report)),
            Admission::HangsUp => return Ok(()),
            Admission::Silent => std::future::pending().await,
            Admission::Garbage => {
                self.reply.0.extend_from_slice(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                return Ok(self.reply.send(&mut self.plug).await?);
            }
        }
        self.node.greeting(self.number, &mut self.reply);
        self.reply.send(&mut self.plug).await?;
        loop {
            let message = Message::read(&mut self.plug).await?;
            self.node.thawed(&self.control).await;
            if message.tag == b'X' {
                return Ok(());
            }
            self.receive(&message).await?;
        }
    }

    async fn receive(&mut self, message: &Message) -> Result<(), Stop> {
        match message.tag {
            b'Q' => {
                let statement = Statement::parse(message.parts().text());
                let outcome = self.execute(&statement, &[], false).await;
                self.conclude(outcome).await?;
                self.ready().await
            }
            b'S' => {
                self.skipping = false;
                self.ready().await
            }
            _ if self.skipping => Ok(()),
            b'E' => {
                let portal = self.portals.get(message.parts().text()).cloned();
                let outcome = match portal {
                    Some((statement, parameters)) => self.execute(&statement, &parameters, true).await,
                    None => Err(Stop::Fatal(error("34000", "no such portal"))),
                };
                self.skipping = outcome.is_err();
                self.conclude(outcome).await
            }
            b'H' => Ok(self.reply.send(&mut self.plug).await?),
            _ => {
                self.prepare(message);
                Ok(())
            }
        }
    }

    /// Parse, Bind, Describe and Close.
    fn prepare(&mut self, message: &Message) {
        let mut parts = message.parts();
        match message.tag {
            b'P' => {
                let name = parts.text().to_owned();
                self.prepared.insert(name, Statement::parse(parts.text()));
                self.reply.frame(b'1', &[]);
            }
            b'B' => {
                let (portal, name) = (parts.text().to_owned(), parts.text());
                let statement =
                    self.prepared.get(name).cloned().unwrap_or_else(|| Statement::parse("of an unknown name"));
                self.portals.insert(portal, (statement, parts.parameters()));
                self.reply.frame(b'2', &[]);
            }
            b'D' => {
                let kind = parts.byte();
                let statement = match kind {
                    b'S' => self.prepared.get(parts.text()),
                    _ => self.portals.get(parts.text()).map(|(statement, _)| statement),
                };
                let (parameters, columns) = statement.map_or((0, 0), |it| (it.parameters(), it.columns()));
                if kind == b'S' {
                    let types = [&[0, parameters as u8][..], &20_u32.to_be_bytes().repeat(parameters)].concat();
                    self.reply.frame(b't', &types);
                }
                match columns {
                    0 => self.reply.frame(b'n', &[]),
                    columns => self.reply.columns(columns),
                };
            }
            _ => {
                self.reply.frame(b'3', &[]);
            }
        }
    }

    /// Tells of an error that does not end the session.
    async fn conclude(&mut self, outcome: Result<(), Stop>) -> Result<(), Stop> {
        match outcome {
            Err(Stop::Fatal(report)) if report.severity == "ERROR" => {
                if self.transaction == Transaction::Open {
                    self.transaction = Transaction::Failed;
                }
                self.reply.report(b'E', report);
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn ready(&mut self) -> Result<(), Stop> {
        let in_recovery = self.node.state().in_recovery;
        if self.told_recovery != in_recovery {
            self.told_recovery = in_recovery;
            self.reply.parameter("in_hot_standby", if in_recovery { "on" } else { "off" });
        }
        self.reply.ready(self.transaction as u8);
        Ok(self.reply.send(&mut self.plug).await?)
    }

    async fn execute(&mut self, statement: &Statement, parameters: &[String], binary: bool) -> Result<(), Stop> {
        self.check_owner(statement);
        if let Some(lease) = statement.lease {
            self.record().book().leases[lease as usize].received += 1;
        }
        self.node.dawdle().await;
        let ends = matches!(statement.what, What::Commit | What::Rollback);
        if self.transaction == Transaction::Failed && !ends {
            return Err(Stop::Fatal(error("25P02", "current transaction is aborted")));
        }
        let columns = statement.columns();
        if columns > 0 && !binary {
            self.reply.columns(columns);
        }
        match &statement.what {
            // Whoever pings without end would go on so without any time passing.
            What::Ping if self.answer_ping() => {}
            What::Ping => std::future::pending().await,
            What::Begin => {
                self.transaction = Transaction::Open;
                self.opened = self.record().at();
                self.reply.complete("BEGIN");
            }
            What::Commit => self.commit().await?,
            What::Claim(key) => self.claim(key).await?,
            What::Settle { key, answer } => {
                self.key = Some((key.clone(), Some(answer.clone())));
                self.reply.complete("UPDATE 1");
                self.commit().await?;
            }
            What::Rollback => {
                self.close_transaction(false);
                self.reply.complete("ROLLBACK");
            }
            What::Insert(value) => self.insert(value.with(parameters)).await?,
            What::Find(value) => self.find(value.with(parameters), binary),
            What::Wait(milliseconds) => {
                self.wait(*milliseconds).await?;
                self.reply.row(&[Some("1".to_owned())], binary).complete("SELECT 1");
            }
            What::Number | What::Epoch | What::Status(_) => self.tell_fate(&statement.what, binary)?,
            What::Rows(rows) => self.rows(*rows, binary).await?,
            What::Fail(code) => return Err(Stop::Fatal(raised(code))),
            What::Nothing => {
                self.reply.complete("SET");
            }
            What::Unknown(text) => {
                self.record().violation(format!("the simulation does not know this statement: {text}"));
                return Err(Stop::Fatal(error("42601", "syntax error")));
            }
        }
        self.node.thawed(&self.control).await;
        if statement.lease.is_some() {
            self.finished = self.record().at();
        }
        Ok(())
    }

    fn answer_ping(&mut self) -> bool {
        let at = self.record().at();
        self.record().book().pings.push((self.node.index, at));
        if self.record().book().pings.len() == TOO_MANY {
            self.record().violation("invariant 8: pings without end");
        }
        let row = {
            let state = self.node.state();
            let recovering = if state.in_recovery { "t" } else { "f" };
            [recovering.to_owned(), state.timeline.to_string(), state.system.to_string(), "0/100".to_owned()]
        };
        self.reply.row(&row.map(Some), false).complete("SELECT 1");
        self.record().book().pings.len() < TOO_MANY
    }

    async fn commit(&mut self) -> Result<(), Stop> {
        if self.transaction == Transaction::Failed {
            self.close_transaction(false);
            self.reply.complete("ROLLBACK");
            return Ok(());
        }
        self.node.dawdle().await;
        let trap = if self.pending.is_empty() && self.key.is_none() { None } else { self.node.state().trap.take() };
        if trap == Some(Trap::Crash) {
            self.node.crash();
        }
        if matches!(trap, Some(Trap::BeforeCommit | Trap::Crash)) {
            return Err(Stop::Left);
        }
        for id in std::mem::take(&mut self.pending) {
            self.write_down(id);
        }
        self.close_transaction(true);
        if trap == Some(Trap::AfterCommit) {
            return Err(Stop::Left);
        }
        // What is done may take a while to be told, and may never be.
        self.node.dawdle().await;
        self.reply.complete("COMMIT");
        Ok(())
    }

    /// Waits until nobody else has the key, and takes it.
    async fn claim(&mut self, key: &str) -> Result<(), Stop> {
        if self.node.state().in_recovery {
            return Err(Stop::Fatal(error("25006", "cannot execute INSERT in a read-only transaction")));
        }
        self.transaction = Transaction::Open;
        self.opened = self.record().at();
        while self.node.state().claims.get(key).is_some_and(|session| *session != self.number) {
            time::pass(time::MS).await;
        }
        let stored = {
            let mut state = self.node.state();
            state.claims.insert(key.to_owned(), self.number);
            state.keys.get(key).cloned()
        };
        self.key = Some((key.to_owned(), None));
        self.reply.complete("BEGIN").columns(1);
        match &stored {
            None => self.reply.row(&[Some("t".to_owned())], false).complete("INSERT 0 1"),
            Some(_) => self.reply.complete("INSERT 0 0"),
        };
        self.reply.columns(2).row(&[stored, None], false).complete("SELECT 1");
        Ok(())
    }

    fn close_transaction(&mut self, committed: bool) {
        if let Some((key, answer)) = self.key.take() {
            let mut state = self.node.state();
            state.claims.remove(&key);
            if let Some(answer) = answer.filter(|_| committed) {
                state.keys.insert(key, answer);
            }
        }
        if let Some(xid) = self.xid.take() {
            self.node.state().end(xid, committed);
        }
        if self.transaction != Transaction::None {
            self.over = self.record().at();
        }
        self.pending.clear();
        self.transaction = Transaction::None;
    }

    async fn insert(&mut self, id: u64) -> Result<(), Stop> {
        self.record().book().ledger.entry(id).or_default().received += 1;
        if self.node.state().in_recovery {
            return Err(Stop::Fatal(error("25006", "cannot execute INSERT in a read-only transaction")));
        }
        self.xid.get_or_insert_with(|| self.node.state().begin());
        self.pending.push(id);
        if self.transaction == Transaction::None {
            self.commit().await?;
            // The tag of the statement, not that of its commit.
            self.reply.0.truncate(self.reply.0.len() - b"C\0\0\0\x0bCOMMIT\0".len());
        }
        self.reply.complete("INSERT 0 1");
        Ok(())
    }

    fn write_down(&self, id: u64) {
        let at = self.record().at();
        let mut book = self.record().book();
        let line = book.ledger.entry(id).or_default();
        line.committed += 1;
        line.at = at;
    }

    fn find(&mut self, id: u64, binary: bool) {
        let behind = if self.node.state().in_recovery { LAG } else { Duration::ZERO };
        let at = self.record().at();
        let line = self.record().book().ledger.get(&id).copied().unwrap_or_default();
        let count = if line.at + behind <= at { line.committed } else { 0 };
        self.reply.row(&[Some(count.to_string())], binary).complete("SELECT 1");
    }

    /// What a transaction is called, and what became of it.
    fn tell_fate(&mut self, what: &What, binary: bool) -> Result<(), Stop> {
        let row = {
            let state = self.node.state();
            if state.in_recovery && *what != What::Number {
                return Err(Stop::Fatal(error("55000", "recovery is in progress")));
            }
            match what {
                What::Status(xid) => vec![state.status(*xid).map(str::to_owned), Some(state.epoch())],
                What::Epoch => vec![Some(state.epoch())],
                _ => vec![self.xid.map(|xid| xid.to_string()), Some(state.started())],
            }
        };
        self.reply.row(&row, binary).complete("SELECT 1");
        Ok(())
    }

    async fn wait(&mut self, milliseconds: u64) -> Result<(), Stop> {
        tokio::select! {
            biased;
            report = self.control.interrupted() => Err(Stop::Fatal(report)),
            () = time::pass(Duration::from_millis(milliseconds)) => Ok(()),
        }
    }

    async fn rows(&mut self, rows: u64, binary: bool) -> Result<(), Stop> {
        for row in 0..rows {
            self.reply.row(&[Some(row.to_string())], binary);
            if row % 16 == 15 {
                self.reply.send(&mut self.plug).await?;
                self.node.thawed(&self.control).await;
            }
        }
        self.reply.complete(&format!("SELECT {rows}"));
        Ok(())
    }

    /// Who gets a connection gets it idle, outside of a transaction, from after the last outage, and to himself.
    fn check_owner(&mut self, statement: &Statement) {
        let (Some(lease), before) = (statement.lease, self.lease) else { return };
        if before == Some(lease) {
            return;
        }
        self.lease = Some(lease);
        let (record, server) = (self.record().clone(), self.node.index);
        let (loan, turn, panicked) = {
            let book = record.book();
            let loan = book.leases[lease as usize].clone();
            let turn = book.last_turn(server, loan.lent);
            let panicked = before.is_some_and(|before| book.leases[before as usize].panicked);
            (loan, turn, panicked)
        };
        let (name, number) = (self.node.name, self.number);
        record.check(before.is_none_or(|before| before < lease), || {
            format!(
                "invariant 6: a statement of lease {lease} reaches session {number} of {name}, lent to {before:?} since"
            )
        });
        let is_open = self.transaction != Transaction::None && self.opened < loan.lent;
        let was_open = self.opened < loan.lent && self.over > loan.lent;
        record.check(loan.begun || !is_open && !was_open, || {
            format!("invariant 6: lease {lease} got session {number} of {name} in a transaction of lease {before:?}")
        });
        record.check(!panicked, || format!("invariant 6: lease {lease} got what panicked with {before:?}"));
        record.check(self.finished <= loan.lent || before.is_none(), || {
            format!("invariant 6: lease {lease} got session {number} of {name}, busy for lease {before:?}")
        });
        record.check(turn.is_none_or(|turn| turn.at <= self.started), || {
            format!("invariant 7: lease {lease} got session {number} of {name}, which is older than {turn:?}")
        });
        record.check(loan.server == server, || format!("lease {lease} says server {}, and is {name}", loan.server));
    }

    fn record(&self) -> &Record {
        &self.node.record
    }
}

/// An error that an application raises on purpose.
fn raised(code: &str) -> Report {
    const CODES: [&str; 14] = [
        "57P01", "57P02", "57P03", "53300", "53100", "57014", "40001", "40P01", "42P01", "25006", "08006", "58030",
        "XX000", "23505",
    ];
    let code = CODES.into_iter().find(|known| *known == code).unwrap_or("P0001");
    error(code, "raised by the application")
}
