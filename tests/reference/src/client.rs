//! Sends many questions to a server.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::questions::{Question, Transport};

/// The number of pending questions over UDP.
const WINDOW: usize = 32;
/// The number of questions of one connection, and of simultaneous connections for questions that get one each.
const PIPELINE: usize = 16;
/// The silences after which unanswered questions are repeated; the last one ends the wait.
const SILENCES: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_millis(500),
    Duration::from_millis(1500),
];
/// The pause before a question is repeated: NSD sends at most 100 errors a second.
const PAUSE: Duration = Duration::from_millis(15);
/// The longest wait on a connection with several questions.
const CONNECTION: Duration = Duration::from_secs(5);

/// The number of messages that their identifiers tell apart.
const IDENTIFIERS: usize = 1 << 16;

/// The answer to each question; `None` if there was none.
pub type Answers = Vec<Option<Vec<u8>>>;

/// Sends all questions, and collects the answers.
///
/// # Errors
/// The sockets fail.
pub fn ask(server: SocketAddr, questions: &[Question]) -> Result<Answers> {
    let parts = questions.chunks(IDENTIFIERS);
    let answers = parts.map(|part| ask_at_once(server, part));
    Ok(answers.collect::<Result<Vec<_>>>()?.concat())
}

/// Sends questions that have an identifier each.
fn ask_at_once(server: SocketAddr, questions: &[Question]) -> Result<Answers> {
    let mut answers = vec![None; questions.len()];
    let of = |transport| -> Vec<usize> {
        let all = questions.iter().enumerate();
        all.filter(|(_, q)| q.transport == transport)
            .map(|(index, _)| index)
            .collect()
    };
    datagrams(server, questions, of(Transport::Udp), &mut answers).context("over UDP")?;
    connections(server, questions, &of(Transport::Tcp), &mut answers).context("over TCP")?;
    Ok(answers)
}

/// The answers of a server to each question.
#[derive(Default)]
pub struct Heard {
    /// The answer to the question as it is.
    pub first: Answers,
    /// The answer over TCP, if the answer over UDP was truncated.
    pub whole: Answers,
}

impl Heard {
    /// Asks all questions by `ask`, and those with truncated answers again over TCP.
    ///
    /// # Errors
    /// The errors of `ask`.
    pub fn new(
        questions: &[Question],
        mut ask: impl FnMut(&[Question]) -> Result<Answers>,
    ) -> Result<Self> {
        let first = ask(questions)?;
        let is_truncated = |answer: &Option<Vec<u8>>| {
            let flags = answer.as_ref().and_then(|bytes| bytes.get(2));
            flags.is_some_and(|flags| flags & 0x02 != 0)
        };
        let (places, again): (Vec<_>, Vec<_>) = questions
            .iter()
            .zip(&first)
            .enumerate()
            .filter(|(_, (question, answer))| {
                // A transfer over TCP is more than an answer.
                question.transport == Transport::Udp
                    && !question.is_transfer()
                    && is_truncated(answer)
            })
            .map(|(index, (question, _))| {
                let transport = Transport::Tcp;
                let question = question.clone();
                (
                    index,
                    Question {
                        transport,
                        ..question
                    },
                )
            })
            .unzip();
        let mut whole = vec![None; questions.len()];
        for (index, answer) in places.into_iter().zip(ask(&again)?) {
            if let Some(place) = whole.get_mut(index) {
                *place = answer;
            }
        }
        Ok(Self { first, whole })
    }

    /// The answers of a server over the network.
    ///
    /// # Errors
    /// The errors of [`ask`].
    pub fn from(server: SocketAddr, questions: &[Question]) -> Result<Self> {
        Self::new(questions, |questions| ask(server, questions))
    }

    /// As [`Heard::from`], for a server that refuses a query whose RCODE is not 0, as NSD does: it is asked with RCODE
    /// 0. The RCODE belongs to responses (RFC 1035 section 4.1.1); in a query it must change nothing for the tested
    /// server.
    ///
    /// # Errors
    /// The errors of [`ask`].
    pub fn from_reference(server: SocketAddr, questions: &[Question]) -> Result<Self> {
        let mut questions = questions.to_vec();
        for flags in questions.iter_mut().filter_map(|q| q.bytes.get_mut(3)) {
            *flags &= 0xf0;
        }
        Self::from(server, &questions)
    }
}

/// The message of a question, with its index as the identifier.
fn message(questions: &[Question], index: usize) -> Vec<u8> {
    let mut bytes = questions
        .get(index)
        .map(|q| q.bytes.clone())
        .unwrap_or_default();
    let id = u16::try_from(index).unwrap_or_default().to_be_bytes();
    for (to, from) in bytes.iter_mut().zip(id) {
        *to = from;
    }
    bytes
}

/// Stores an answer at its question. Returns the index.
fn store(answers: &mut Answers, answer: &[u8]) -> Option<usize> {
    let index = usize::from(u16::from_be_bytes(*answer.first_chunk()?));
    let place = answers.get_mut(index)?;
    place.is_none().then(|| {
        *place = Some(answer.to_vec());
        index
    })
}

fn datagrams(
    server: SocketAddr,
    questions: &[Question],
    mut todo: Vec<usize>,
    answers: &mut Answers,
) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    let mut buffer = vec![0; 65536];
    for (round, silence) in SILENCES.into_iter().enumerate() {
        socket.set_read_timeout(Some(silence))?;
        let mut left = todo.iter();
        // Questions without an answer keep their place in the window until there is silence.
        let mut open = 0;
        loop {
            while open < WINDOW
                && let Some(&index) = left.next()
            {
                if round > 0 {
                    thread::sleep(PAUSE);
                }
                socket.send(&message(questions, index))?;
                open += 1;
            }
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let answer = buffer.get(..length).unwrap_or_default();
                    open -= usize::from(store(answers, answer).is_some()).min(open);
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    open = 0;
                    if left.len() == 0 {
                        break;
                    }
                }
                Err(e) => return Err(e.into()),
            }
            if open == 0 && left.len() == 0 {
                break;
            }
        }
        todo.retain(|&index| answers.get(index).is_some_and(Option::is_none));
    }
    Ok(())
}

fn connections(
    server: SocketAddr,
    questions: &[Question],
    todo: &[usize],
    answers: &mut Answers,
) -> Result<()> {
    for pipeline in todo.chunks(PIPELINE) {
        for answer in connection(server, questions, pipeline, CONNECTION)? {
            store(answers, &answer);
        }
    }
    // A server may close the connection because of one question: the others must not suffer.
    let unanswered = |answers: &Answers| -> Vec<usize> {
        let all = todo.iter().copied();
        all.filter(|&index| answers.get(index).is_some_and(Option::is_none))
            .collect()
    };
    for silence in SILENCES {
        for some in unanswered(answers).chunks(PIPELINE) {
            let results: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = some
                    .iter()
                    .map(|&index| {
                        thread::sleep(PAUSE);
                        scope.spawn(move || connection(server, questions, &[index], silence))
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(thread::ScopedJoinHandle::join)
                    .collect()
            });
            for result in results {
                let one = result.map_err(|_| anyhow::anyhow!("a client panicked"))??;
                for answer in one {
                    store(answers, &answer);
                }
            }
        }
    }
    Ok(())
}

/// Sends questions one after the other over one connection. Returns all answers that come before it is closed or
/// silent.
fn connection(
    server: SocketAddr,
    questions: &[Question],
    indices: &[usize],
    bound: Duration,
) -> Result<Vec<Vec<u8>>> {
    let mut stream = TcpStream::connect_timeout(&server, CONNECTION).context("connecting")?;
    stream.set_nodelay(true)?;
    let mut bytes = Vec::new();
    for &index in indices {
        let message = message(questions, index);
        bytes.extend(u16::try_from(message.len())?.to_be_bytes());
        bytes.extend(message);
    }
    let mut answers = Vec::new();
    let end = Instant::now() + bound;
    let result = (|| -> std::io::Result<()> {
        stream.write_all(&bytes)?;
        while answers.len() < indices.len() {
            let left = end.saturating_duration_since(Instant::now());
            stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut answer)?;
            answers.push(answer);
        }
        Ok(())
    })();
    // The end of a connection is no answer; an early end shows in the missing answers.
    let _ = result;
    Ok(answers)
}
