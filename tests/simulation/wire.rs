//! PostgreSQL's protocol as its server speaks it, as far as the driver asks for it (manual, chapter 55).

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::net::Plug;

/// The first message of a connection.
pub(crate) enum Opening {
    Login,
    Cancel { session: u32 },
}

/// A message of a client.
pub(crate) struct Message {
    pub(crate) tag: u8,
    body: Vec<u8>,
}

/// The parts of a message, read one after the other.
pub(crate) struct Parts<'a>(&'a [u8]);

/// What the server has to say, until it is sent.
#[derive(Debug, Default)]
pub(crate) struct Reply(pub(crate) Vec<u8>);

/// An error as the server reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) severity: &'static str,
    pub(crate) code: &'static str,
    pub(crate) text: &'static str,
    /// The place in the server that reports it.
    pub(crate) routine: &'static str,
}

pub(crate) const fn error(code: &'static str, text: &'static str) -> Report {
    Report { severity: "ERROR", code, text, routine: "simulated" }
}

pub(crate) const fn fatal(code: &'static str, text: &'static str) -> Report {
    Report { severity: "FATAL", code, text, routine: "simulated" }
}

pub(crate) async fn opening(plug: &mut Plug) -> io::Result<Opening> {
    let length = plug.read_u32().await?;
    let mut body = vec![0; length.saturating_sub(4) as usize];
    plug.read_exact(&mut body).await?;
    let mut parts = Parts(&body);
    Ok(if parts.int() == 80_877_102 { Opening::Cancel { session: parts.int() } } else { Opening::Login })
}

impl Message {
    pub(crate) async fn read(plug: &mut Plug) -> io::Result<Self> {
        let (tag, length) = (plug.read_u8().await?, plug.read_u32().await?);
        let mut body = vec![0; length.saturating_sub(4) as usize];
        plug.read_exact(&mut body).await?;
        Ok(Self { tag, body })
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts(&self.body)
    }
}

impl<'a> Parts<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn text(&mut self) -> &'a str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let text = self.take(end);
        self.take(1);
        std::str::from_utf8(text).unwrap_or_default()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    pub(crate) fn short(&mut self) -> u16 {
        self.take(2).try_into().map_or(0, u16::from_be_bytes)
    }

    pub(crate) fn int(&mut self) -> u32 {
        self.take(4).try_into().map_or(0, u32::from_be_bytes)
    }

    /// The parameters of a Bind, all of them `int8` or text; after its two names.
    pub(crate) fn parameters(&mut self) -> Vec<String> {
        let formats: Vec<u16> = (0..self.short()).map(|_| self.short()).collect();
        let count = self.short();
        let format = |index: usize| formats.get(index).or(formats.first()).copied().unwrap_or(0);
        (0..usize::from(count))
            .map(|index| {
                let length = self.int() as usize;
                let bytes = self.take(length);
                match (format(index), <[u8; 8]>::try_from(bytes)) {
                    (1, Ok(eight)) => i64::from_be_bytes(eight).to_string(),
                    _ => String::from_utf8_lossy(bytes).into_owned(),
                }
            })
            .collect()
    }
}

impl Reply {
    pub(crate) fn frame(&mut self, tag: u8, body: &[u8]) -> &mut Self {
        let length = u32::try_from(body.len() + 4).expect("replies are short");
        self.0.push(tag);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(body);
        self
    }

    pub(crate) fn parameter(&mut self, name: &str, value: &str) -> &mut Self {
        self.frame(b'S', format!("{name}\0{value}\0").as_bytes())
    }

    pub(crate) fn ready(&mut self, status: u8) -> &mut Self {
        self.frame(b'Z', &[status])
    }

    pub(crate) fn complete(&mut self, tag: &str) -> &mut Self {
        self.frame(b'C', format!("{tag}\0").as_bytes())
    }

    pub(crate) fn report(&mut self, tag: u8, report: Report) -> &mut Self {
        let Report { severity, code, text, routine } = report;
        self.frame(tag, format!("S{severity}\0V{severity}\0C{code}\0M{text}\0R{routine}\0\0").as_bytes())
    }

    /// The names of a result's columns: `int8` in the extended protocol and text in the simple one.
    pub(crate) fn columns(&mut self, count: usize) -> &mut Self {
        let mut body = u16::try_from(count).expect("few columns").to_be_bytes().to_vec();
        for _ in 0..count {
            // Name, table, column, type int8, its size, no modifier, text.
            body.extend_from_slice(b"c\0\0\0\0\0\0\0\0\0\0\x14\0\x08\xff\xff\xff\xff\0\0");
        }
        self.frame(b'T', &body)
    }

    pub(crate) fn row(&mut self, columns: &[Option<String>], binary: bool) -> &mut Self {
        let mut body = u16::try_from(columns.len()).expect("few columns").to_be_bytes().to_vec();
        for column in columns {
            let Some(column) = column else {
                body.extend_from_slice(&u32::MAX.to_be_bytes());
                continue;
            };
            let value = match column.parse::<i64>() {
                Ok(number) if binary => number.to_be_bytes().to_vec(),
                _ => column.as_bytes().to_vec(),
            };
            body.extend_from_slice(&u32::try_from(value.len()).expect("short").to_be_bytes());
            body.extend_from_slice(&value);
        }
        self.frame(b'D', &body)
    }

    /// Sends what there is. An error says that the client is gone.
    pub(crate) async fn send(&mut self, plug: &mut Plug) -> io::Result<()> {
        let sent = plug.write_all(&self.0).await;
        self.0.clear();
        sent
    }
}
