//! The host's client of the agent in dom0.

use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mayfly_agent::{Frame, MAX_PAYLOAD, Op, Request};

/// The result of a command in dom0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit code; 128 + n for a program that died of signal n.
    pub code: i32,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether the exit code is 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == 0
    }

    /// Standard output as text, with invalid UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text, with invalid UTF-8 replaced.
    #[must_use]
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A piece of a running command's output.
#[derive(Clone, Copy, Debug)]
pub enum Chunk<'a> {
    /// From standard output.
    Stdout(&'a [u8]),
    /// From standard error.
    Stderr(&'a [u8]),
}

/// The agent's port on the host, and the secret that it wants.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) port: u16,
    pub(crate) token: String,
}

/// A request in progress, with its deadline.
struct Call {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    deadline: Instant,
}

impl Call {
    fn frame(&mut self) -> Result<Frame> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("the command has not ended in time");
        }
        self.stream.set_read_timeout(Some(left))?;
        match Frame::read(&mut self.reader) {
            Ok(Frame::Error(e)) => bail!("{e}"),
            Ok(frame) => Ok(frame),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                bail!("the command has not ended in time")
            }
            Err(e) => Err(e).context("the connection to dom0 has ended"),
        }
    }

    fn send(&mut self, data: &[u8]) -> Result<()> {
        for chunk in data.chunks(MAX_PAYLOAD) {
            Frame::Data(chunk.to_vec()).write(&mut self.stream)?;
        }
        Ok(Frame::End.write(&mut self.stream)?)
    }

    fn done(&mut self) -> Result<()> {
        match self.frame()? {
            Frame::Exit(0) => Ok(()),
            other => bail!("the agent answered {other:?}"),
        }
    }
}

impl Client {
    fn call(&self, op: Op, bound: Duration) -> Result<Call> {
        let address = (Ipv4Addr::LOCALHOST, self.port).into();
        let mut stream = TcpStream::connect_timeout(&address, bound)
            .context("cannot connect to dom0's agent")?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(bound))?;
        let mut line = serde_json::to_vec(&Request {
            token: self.token.clone(),
            op,
        })?;
        line.push(b'\n');
        stream.write_all(&line)?;
        Ok(Call {
            reader: BufReader::new(stream.try_clone()?),
            stream,
            deadline: Instant::now() + bound,
        })
    }

    pub(crate) fn ping(&self, bound: Duration) -> Result<()> {
        self.call(Op::Ping, bound)?.done()
    }

    pub(crate) fn power_off(&self, bound: Duration) -> Result<()> {
        self.call(Op::PowerOff, bound)?.done()
    }

    /// Runs a program. Returns `None` if `each` broke off, which kills the program.
    pub(crate) fn exec(
        &self,
        argv: Vec<String>,
        stdin: &[u8],
        bound: Duration,
        each: &mut dyn FnMut(Chunk<'_>) -> ControlFlow<()>,
    ) -> Result<Option<i32>> {
        let mut call = self.call(Op::Exec { argv }, bound)?;
        call.send(stdin)?;
        loop {
            let flow = match call.frame()? {
                Frame::Data(d) => each(Chunk::Stdout(&d)),
                Frame::Stderr(d) => each(Chunk::Stderr(&d)),
                Frame::Exit(code) => return Ok(Some(code)),
                other => bail!("the agent answered {other:?}"),
            };
            if flow.is_break() {
                return Ok(None);
            }
        }
    }

    pub(crate) fn put(&self, path: &str, mode: u32, data: &[u8], bound: Duration) -> Result<()> {
        let mut call = self.call(
            Op::Put {
                path: path.to_owned(),
                mode,
            },
            bound,
        )?;
        call.send(data)?;
        call.done()
    }

    pub(crate) fn get(&self, path: &str, bound: Duration) -> Result<Vec<u8>> {
        let mut call = self.call(
            Op::Get {
                path: path.to_owned(),
            },
            bound,
        )?;
        let mut data = Vec::new();
        loop {
            match call.frame()? {
                Frame::Data(d) => data.extend_from_slice(&d),
                Frame::Exit(0) => return Ok(data),
                other => bail!("the agent answered {other:?}"),
            }
        }
    }
}
