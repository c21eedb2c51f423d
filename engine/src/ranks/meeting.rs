//! How ranks find each other: rank 0 listens, the others knock until it answers.
//!
//! Rank 0 answers when all have come, or when one came that does not fit: then all are told why. Strangers (another
//! run, a port scanner) are turned away and change nothing. The file of a rendezvous holds host, port and a word that
//! only those who can read the file know; one that an earlier run left behind leads nowhere and is read again.

use std::fs;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use spdflow_cache::Digest;

use super::connection::{Connection, Tag, reason};
use super::greeting::{Answer, Greeting, Identity, LONGEST};
use super::place::{Meeting, Place};
use crate::kind::StopFlag;
use crate::machine::host;

/// Between two looks whether somebody came.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a greeting may take once the connection is made.
const GREETING: Duration = Duration::from_secs(5);

/// Why ranks did not find each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeetingError {
    /// Somebody did not come.
    #[error("{0}")]
    Missing(String),
    /// Somebody does not fit.
    #[error("{0}")]
    Refused(String),
    /// Rank 0 cannot listen.
    #[error("rank 0 cannot listen at {place}: {why}")]
    CannotListen {
        /// Where.
        place: String,
        /// What the system said.
        why: String,
    },
    /// The user does not want to wait.
    #[error("interrupted while waiting for other ranks")]
    Interrupted,
}

/// How long to wait, and whom to tell.
struct Wait<'a> {
    begin: Instant,
    limit: Duration,
    stop: &'a StopFlag,
}

impl Wait<'_> {
    fn is_over(&self) -> Result<bool, MeetingError> {
        if self.stop.is_raised() { Err(MeetingError::Interrupted) } else { Ok(self.begin.elapsed() >= self.limit) }
    }
}

/// Waits as rank 0 for all others; `tell` is called once, if that takes long. Returns their connections in order.
///
/// # Errors
/// [`MeetingError`] if not all come.
pub fn lead(
    place: &Place,
    identity: &Identity,
    limit: Duration,
    stop: &StopFlag,
    tell: &mut dyn FnMut(&str),
) -> Result<Vec<Connection>, MeetingError> {
    let listens_at = match &place.meeting {
        Meeting::Address(host, port) => format!("{host}:{port}"),
        Meeting::File(path) => format!("`{}`", path.display()),
    };
    let cannot = |why: io::Error| MeetingError::CannotListen { place: listens_at.clone(), why: why.to_string() };
    let (listener, session, announced) = listen(place).map_err(cannot)?;
    let wait = Wait { begin: Instant::now(), limit, stop };
    let mut tell = |who: &str| tell(&format!("{who} at {listens_at}"));
    let late = |who: &str| MeetingError::Missing(format!("{who} did not come to {listens_at} in time"));
    let result = gather(&listener, &Greeting::new(place, &session, identity), place.size, &wait, &mut tell, &late);
    if let Some(path) = announced {
        // All have come, or nobody needs to any more.
        let _ = fs::remove_file(path);
    }
    result
}

fn listen(place: &Place) -> io::Result<(TcpListener, String, Option<&Path>)> {
    let (listener, session, announced) = match &place.meeting {
        // A name may mean something else to the machine that has it, so it is open to all its networks.
        Meeting::Address(host, port) if host == "localhost" || host.starts_with("127.") => {
            (TcpListener::bind((host.as_str(), *port))?, place.session.clone(), None)
        }
        Meeting::Address(_, port) => (bind_anywhere(*port)?, place.session.clone(), None),
        Meeting::File(path) => {
            let listener = bind_anywhere(0)?;
            let word = word();
            announce(path, &format!("{} {} {word}\n", host(), listener.local_addr()?.port()))?;
            (listener, word, Some(path.as_path()))
        }
    };
    listener.set_nonblocking(true)?;
    Ok((listener, session, announced))
}

fn bind_anywhere(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))
}

/// Returns a word that nobody guesses.
fn word() -> String {
    let mut bytes = [0; 32];
    let random = fs::File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    match random {
        Ok(()) => Digest::of(&bytes).short(),
        Err(_) => Digest::of(format!("{} {}", std::process::id(), now.as_nanos()).as_bytes()).short(),
    }
}

/// Writes the file in one piece, for the user alone.
fn announce(path: &Path, text: &str) -> io::Result<()> {
    let mut temporary = path.to_owned();
    temporary.as_mut_os_string().push(format!(".{}.tmp", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&temporary, path)
}

fn gather(
    listener: &TcpListener,
    ours: &Greeting,
    size: usize,
    wait: &Wait<'_>,
    tell: &mut dyn FnMut(&str),
    late: &dyn Fn(&str) -> MeetingError,
) -> Result<Vec<Connection>, MeetingError> {
    let mut present: Vec<Option<Connection>> = (1..size).map(|_| None).collect();
    let mut has_told = false;
    while present.iter().any(Option::is_none) {
        if wait.is_over()? {
            return Err(refuse(&present, late(&missing(&present))));
        }
        let Ok((stream, _)) = listener.accept() else {
            if !has_told && wait.begin.elapsed() > Duration::from_secs(2) {
                tell(&missing(&present));
                has_told = true;
            }
            std::thread::sleep(PAUSE);
            continue;
        };
        // Whoever does not greet in time is none of us.
        let Some((connection, greeting)) = greeted(stream).filter(|(_, greeting)| greeting.is_of(ours)) else {
            continue;
        };
        let is_taken = |greeting: &Greeting| present[greeting.rank - 1].is_some();
        let misfit = greeting
            .misfit(ours)
            .or_else(|| is_taken(&greeting).then(|| format!("two processes say that they are rank {}", greeting.rank)));
        if let Some(refusal) = misfit {
            present.push(Some(connection));
            return Err(refuse(&present, MeetingError::Refused(refusal)));
        }
        present[greeting.rank - 1] = Some(connection);
    }
    let welcome = serde_json::to_vec(&Answer { refusal: None }).expect("plain data");
    let connections: Vec<Connection> = present.into_iter().flatten().collect();
    for connection in &connections {
        // One that is gone already is missed when it is needed.
        let _ = connection.send(Tag::Greeting, &welcome);
        let _ = connection.patience(None);
    }
    Ok(connections)
}

/// Tells all who came why there will be no work.
fn refuse(present: &[Option<Connection>], error: MeetingError) -> MeetingError {
    let answer = Answer { refusal: Some(error.to_string()) };
    let answer = serde_json::to_vec(&answer).expect("plain data");
    for connection in present.iter().flatten() {
        let _ = connection.send(Tag::Greeting, &answer);
    }
    error
}

fn missing(present: &[Option<Connection>]) -> String {
    let missing = present.iter().enumerate().filter(|(_, connection)| connection.is_none());
    let names: Vec<String> = missing.map(|(index, _)| (index + 1).to_string()).collect();
    let ranks = if names.len() == 1 { "rank" } else { "ranks" };
    format!("{ranks} {} of {}", names.join(", "), present.len() + 1)
}

fn greeted(stream: TcpStream) -> Option<(Connection, Greeting)> {
    let connection = Connection::new(stream).ok()?;
    connection.patience(Some(GREETING)).ok()?;
    let (tag, contents) = connection.receive_up_to(LONGEST).ok()?;
    let greeting = serde_json::from_slice(&contents).ok().filter(|_| tag == Tag::Greeting)?;
    Some((connection, greeting))
}

/// Goes to rank 0 as one of the others and waits until all are there.
///
/// # Errors
/// [`MeetingError`] if rank 0 is not found or does not want this rank.
pub fn join(place: &Place, identity: &Identity, limit: Duration, stop: &StopFlag) -> Result<Connection, MeetingError> {
    let wait = Wait { begin: Instant::now(), limit, stop };
    let mut last = "nobody has said where it is".to_owned();
    while !wait.is_over()? {
        match knock(place, identity, &wait) {
            Ok(connection) => return Ok(connection),
            Err(Knock::Final(error)) => return Err(error),
            Err(Knock::Again(why)) => last = why,
        }
        std::thread::sleep(PAUSE);
    }
    Err(MeetingError::Missing(format!("rank {} of {} did not find rank 0 in time: {last}", place.rank, place.size)))
}

/// Why a try to reach rank 0 failed.
enum Knock {
    Again(String),
    Final(MeetingError),
}

fn knock(place: &Place, identity: &Identity, wait: &Wait<'_>) -> Result<Connection, Knock> {
    let (name, port, session) = match &place.meeting {
        Meeting::Address(host, port) => (host.clone(), *port, place.session.clone()),
        Meeting::File(path) => {
            let text =
                fs::read_to_string(path).map_err(|error| Knock::Again(format!("`{}`: {error}", path.display())))?;
            let words: Vec<&str> = text.split_whitespace().collect();
            let port = words.get(1).and_then(|port| port.parse().ok());
            let (&[name, _, word], Some(port)) = (&words[..], port) else {
                return Err(Knock::Again(format!("`{}` does not say where", path.display())));
            };
            // A machine's own name need not lead to it.
            let name = if name == host() { "127.0.0.1" } else { name };
            (name.to_owned(), port, word.to_owned())
        }
    };
    let again = |error: io::Error| Knock::Again(format!("{name}:{port}: {}", reason(&error)));
    let address = (name.as_str(), port).to_socket_addrs().map_err(again)?;
    let mut stream = Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    for address in address {
        stream = TcpStream::connect_timeout(&address, GREETING);
        if stream.is_ok() {
            break;
        }
    }
    let connection = stream.and_then(Connection::new).map_err(again)?;
    let greeting = serde_json::to_vec(&Greeting::new(place, &session, identity)).expect("plain data");
    connection.send(Tag::Greeting, &greeting).map_err(again)?;
    // The answer comes when all are there; until then signals are looked at now and then.
    connection.patience(Some(Duration::from_millis(200))).map_err(again)?;
    let (tag, contents) = loop {
        match connection.receive_up_to(LONGEST) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if wait.is_over().map_err(Knock::Final)? {
                    return Err(Knock::Again(format!("{name}:{port} waits for others")));
                }
            }
            other => break other.map_err(again)?,
        }
    };
    let answer: Option<Answer> = serde_json::from_slice(&contents).ok().filter(|_| tag == Tag::Greeting);
    match answer {
        None => Err(Knock::Again(format!("{name}:{port} is not spdflow"))),
        Some(Answer { refusal: Some(refusal) }) => Err(Knock::Final(MeetingError::Refused(refusal))),
        Some(Answer { refusal: None }) => {
            connection.patience(None).map_err(again)?;
            Ok(connection)
        }
    }
}
