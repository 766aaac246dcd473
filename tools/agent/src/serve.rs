//! The agent: runs programs and moves files for the host.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use mayfly_agent::{Frame, MAX_PAYLOAD, Op, PORT, Request, UP};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::init::environment;

/// The longest accepted request line, in bytes.
const MAX_REQUEST: u64 = 1024 * 1024;
/// The time that output is awaited after a program has ended: a daemon that it started may hold the pipes open for
/// ever.
const AFTER_EXIT: Duration = Duration::from_millis(200);

/// Listens, reports that dom0 is up, and serves each connection in a thread of its own.
pub(crate) fn serve(token: String) -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).context("cannot listen")?;
    println!("{UP}");
    for stream in listener.incoming() {
        let stream = stream.context("cannot accept")?;
        let token = token.clone();
        thread::spawn(move || {
            let result = connection(&stream, &token);
            if let Err(e) = result {
                let mut text = format!("{e:#}");
                text.truncate(text.floor_char_boundary(MAX_PAYLOAD));
                let _ = Frame::Error(text).write(&mut &stream);
            }
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

fn connection(stream: &TcpStream, token: &str) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    (&mut reader).take(MAX_REQUEST).read_line(&mut line)?;
    let request: Request = serde_json::from_str(&line).context("malformed request")?;
    if request.token != token {
        bail!("wrong token: this is another lab's agent");
    }
    match request.op {
        Op::Ping => {}
        Op::Exec { argv } => return exec(&argv, stream, reader),
        Op::Put { path, mode } => put(&path, mode, &mut reader)?,
        Op::Get { path } => get(&path, stream)?,
        Op::PowerOff => {
            Frame::Exit(0).write(&mut &*stream)?;
            crate::power_off();
        }
    }
    Ok(Frame::Exit(0).write(&mut &*stream)?)
}

fn put(path: &str, mode: u32, reader: &mut impl Read) -> Result<()> {
    let path = Path::new(path);
    let folder = path.parent().context("not a file's path")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut name = path
        .file_name()
        .context("not a file's path")?
        .to_os_string();
    name.push(".part");
    let part = folder.join(name);
    let mut file =
        fs::File::create(&part).with_context(|| format!("cannot write {}", part.display()))?;
    loop {
        match Frame::read(reader)? {
            Frame::Data(d) => file.write_all(&d)?,
            Frame::End => break,
            other => bail!("unexpected {other:?}"),
        }
    }
    file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
    // A program whose file is still open for writing cannot be run.
    drop(file);
    fs::rename(&part, path).with_context(|| format!("cannot write {}", path.display()))
}

fn get(path: &str, mut stream: &TcpStream) -> Result<()> {
    let mut file = fs::File::open(path).with_context(|| format!("cannot read {path}"))?;
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        match file
            .read(&mut buffer)
            .with_context(|| format!("cannot read {path}"))?
        {
            0 => return Ok(()),
            n => Frame::Data(buffer.get(..n).unwrap_or_default().to_vec()).write(&mut stream)?,
        }
    }
}

enum Event {
    Output(Frame),
    /// One of the two output pipes has reached its end.
    Closed,
    Exited(ExitStatus),
    HungUp,
}

fn exec(argv: &[String], mut stream: &TcpStream, reader: BufReader<TcpStream>) -> Result<()> {
    let (program, arguments) = argv.split_first().context("no program named")?;
    let mut command = Command::new(program);
    environment(&mut command).args(arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let group = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("no process id")?;
    let (sender, events) = mpsc::channel();
    pump(child.stdout.take(), Frame::Data, &sender);
    pump(child.stderr.take(), Frame::Stderr, &sender);
    feed(&mut child, reader, &sender);
    let waiter = sender.clone();
    thread::spawn(move || {
        waiter.send(Event::Exited(
            child.wait().unwrap_or(ExitStatus::from_raw(255 << 8)),
        ))
    });

    let mut open = 2;
    let mut status = None;
    loop {
        let event = match status {
            None => events.recv().context("all ends of the pipes are lost")?,
            Some(_) if open == 0 => break,
            Some(_) => match events.recv_timeout(AFTER_EXIT) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            },
        };
        let sent = match event {
            Event::Output(frame) => frame.write(&mut stream),
            Event::Closed => {
                open -= 1;
                Ok(())
            }
            Event::Exited(s) => {
                status = Some(s);
                Ok(())
            }
            Event::HungUp => Err(io::ErrorKind::BrokenPipe.into()),
        };
        if let Err(e) = sent {
            // The host is gone, so the output has no reader, and a half-done command must not run on.
            let _ = kill_process_group(group, Signal::KILL);
            return Err(e.into());
        }
    }
    let code = status.map_or(255, exit_code);
    Ok(Frame::Exit(code).write(&mut stream)?)
}

/// Sends the output of a pipe as frames.
fn pump(
    pipe: Option<impl Read + Send + 'static>,
    frame: fn(Vec<u8>) -> Frame,
    sender: &Sender<Event>,
) {
    let sender = sender.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; MAX_PAYLOAD];
        if let Some(mut pipe) = pipe {
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                let data = buffer.get(..n).unwrap_or_default().to_vec();
                if sender.send(Event::Output(frame(data))).is_err() {
                    return;
                }
            }
        }
        let _ = sender.send(Event::Closed);
    });
}

/// Passes the host's input to the program, and notices when the host hangs up.
fn feed(child: &mut Child, mut reader: BufReader<TcpStream>, sender: &Sender<Event>) {
    let mut stdin = child.stdin.take();
    let sender = sender.clone();
    thread::spawn(move || {
        loop {
            match Frame::read(&mut reader) {
                Ok(Frame::Data(d)) => {
                    // A program need not read its input, so a failed write is no error.
                    if stdin
                        .as_mut()
                        .is_some_and(|pipe| pipe.write_all(&d).is_err())
                    {
                        stdin = None;
                    }
                }
                Ok(Frame::End) => stdin = None,
                Ok(_) | Err(_) => {
                    let _ = sender.send(Event::HungUp);
                    return;
                }
            }
        }
    });
}

/// The exit code as a shell gives it: 128 + n for signal n.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
